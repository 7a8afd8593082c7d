// Go's net/http: the answers of the benchmarks. One processor (GOMAXPROCS=1), no log.
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"strconv"
	"strings"
)

type message struct {
	Message string `json:"message"`
}

var (
	hello = []byte("Hello world!")
	big   = bytes.Repeat([]byte("0123456789abcdef"), 65536)
)

func text(w http.ResponseWriter, body []byte) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Write(body)
}

func answer(w http.ResponseWriter, r *http.Request) {
	switch path := r.URL.Path; {
	case path == "/":
		text(w, hello)
	case path == "/json":
		body, err := json.Marshal(message{"Hello world!"})
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Write(body)
	case path == "/big":
		// Above 2 KiB net/http would use chunks.
		w.Header().Set("Content-Length", strconv.Itoa(len(big)))
		text(w, big)
	case (path == "/length" || path == "/upload") && r.Method == http.MethodPost:
		total, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		text(w, strconv.AppendInt(nil, total, 10))
	case strings.HasPrefix(path, "/users/"):
		text(w, []byte(path[len("/users/"):]))
	default:
		http.NotFound(w, r)
	}
}

func main() {
	port := flag.Int("port", 0, "port on 127.0.0.1")
	flag.Parse()
	address := fmt.Sprintf("127.0.0.1:%d", *port)
	log.Fatal(http.ListenAndServe(address, http.HandlerFunc(answer)))
}
