//! actix-web with one worker: the answers of the benchmarks.
//!
//! No middleware, so no access log; one worker, because one core is measured
//! (actix.rs/docs/server, "Multi-Threading"). Payloads are streamed, so the limit of 256 KiB for
//! extractors does not apply.

use std::net::Ipv4Addr;

use actix_web::http::header::ContentType;
use actix_web::{App, HttpResponse, HttpServer, get, routes, web};
use anel_rust_peers::{HELLO, MESSAGE, big, port};
use futures_util::StreamExt as _;

#[get("/")]
async fn hello() -> HttpResponse {
    text(HELLO)
}

#[get("/json")]
async fn json() -> HttpResponse {
    HttpResponse::Ok().json(MESSAGE)
}

#[get("/users/{id}")]
async fn user(id: web::Path<String>) -> HttpResponse {
    text(id.into_inner())
}

#[get("/big")]
async fn large() -> HttpResponse {
    text(big())
}

/// Counts a body without keeping it.
#[routes]
#[post("/length")]
#[post("/upload")]
async fn length(mut payload: web::Payload) -> Result<HttpResponse, actix_web::Error> {
    let mut total = 0;
    while let Some(piece) = payload.next().await {
        total += piece?.len();
    }
    Ok(text(total.to_string()))
}

fn text(body: impl actix_web::body::MessageBody + 'static) -> HttpResponse {
    HttpResponse::Ok()
        .content_type(ContentType::plaintext())
        .body(body)
}

#[actix_web::main]
async fn main() -> std::io::Result<()> {
    let port = port().map_err(std::io::Error::other)?;
    HttpServer::new(|| {
        App::new()
            .service(hello)
            .service(json)
            .service(user)
            .service(large)
            .service(length)
    })
    .workers(1)
    .bind((Ipv4Addr::LOCALHOST, port))?
    .run()
    .await
}
