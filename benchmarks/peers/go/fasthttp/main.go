// fasthttp: the answers of the benchmarks. One processor (GOMAXPROCS=1), no log.
//
// Its documentation's advice for throughput: bytes in place of strings, no router, requests and
// responses re-used by the server itself (github.com/valyala/fasthttp, "Performance optimization tips").
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"strconv"

	"github.com/valyala/fasthttp"
)

type message struct {
	Message string `json:"message"`
}

var (
	hello  = []byte("Hello world!")
	big    = bytes.Repeat([]byte("0123456789abcdef"), 65536)
	prefix = []byte("/users/")
)

func text(ctx *fasthttp.RequestCtx, body []byte) {
	ctx.SetContentType("text/plain; charset=utf-8")
	ctx.SetBody(body)
}

func answer(ctx *fasthttp.RequestCtx) {
	switch path := ctx.Path(); {
	case string(path) == "/":
		text(ctx, hello)
	case string(path) == "/json":
		body, err := json.Marshal(message{"Hello world!"})
		if err != nil {
			ctx.Error(err.Error(), fasthttp.StatusInternalServerError)
			return
		}
		ctx.SetContentType("application/json")
		ctx.SetBody(body)
	case string(path) == "/big":
		text(ctx, big)
	case (string(path) == "/length" || string(path) == "/upload") && ctx.IsPost():
		text(ctx, strconv.AppendInt(nil, int64(len(ctx.PostBody())), 10))
	case bytes.HasPrefix(path, prefix):
		text(ctx, path[len(prefix):])
	default:
		ctx.NotFound()
	}
}

func main() {
	port := flag.Int("port", 0, "port on 127.0.0.1")
	flag.Parse()
	// Room for the upload of 20 MB, which is kept whole.
	server := &fasthttp.Server{Handler: answer, MaxRequestBodySize: 32 << 20}
	log.Fatal(server.ListenAndServe(fmt.Sprintf("127.0.0.1:%d", *port)))
}
