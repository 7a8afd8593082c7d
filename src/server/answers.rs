//! Answers that come late or in pieces: from the application, outside of a call to its handler.
//!
//! Owns `respond` and the three commands of a streamed body, with their back-pressure. Refuses to
//! know how an answer was made, and the form of what is sent (`protocol::stream`). An exchange that
//! is gone makes every command harmless.

use super::connection::Connection;
use super::handler::{ExchangeId, Flow, Handler};
use super::incoming::Interim;
use super::input::Shared;
use super::queue::BodyEnd;
use super::worker::Worker;
use crate::protocol::encode::{CONTINUE, encode};
use crate::protocol::{Answer, CloseReason, ConnectionField, Limits, StreamFraming};

/// What became of a late answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Given {
    /// Nobody can receive it any more.
    Gone,
    /// It was taken, and nothing more belongs to it.
    Whole,
    /// Its head was taken; the body follows through `Worker::send_body`.
    Streaming,
}

impl Worker {
    /// Serialises a late answer in its turn; of one whose body is streamed, the head.
    pub fn respond<H: Handler>(
        &mut self,
        exchange: ExchangeId,
        answer: &Answer<'_>,
        handler: &mut H,
    ) -> Given {
        let shared = &mut self.shared;
        let found = find(&mut self.connections, exchange).and_then(|connection| {
            let context = connection.queue.context(exchange.sequence)?;
            Some((connection, context))
        });
        let Some((connection, mut context)) = found else {
            shared.counters.answers_dropped_total += 1;
            return Given::Gone;
        };
        let framing = StreamFraming::of(answer, context);
        let close = connection.reason_to_close(exchange.sequence, answer, framing, &shared.limits);
        let mut held = Vec::new();
        if let Some(reason) = close {
            context.connection = ConnectionField::Close;
            if framing.is_some() && connection.is_incoming(exchange.sequence) {
                // The rest of its body can still be read.
                connection.closing.get_or_insert(reason);
            } else {
                connection.end_behind(exchange, (reason, shared.now_us), handler);
            }
        }
        if let Some(incoming) = &mut connection.incoming
            && incoming.sequence == exchange.sequence
        {
            if incoming.interim == Interim::Owed && framing.is_some() {
                held.extend_from_slice(CONTINUE);
            }
            incoming.interim = Interim::Settled;
        }
        let is_first = connection.queue.is_first(exchange.sequence);
        let begins_at = is_first.then(|| connection.output_at());
        let out = if is_first {
            &mut connection.out
        } else {
            &mut held
        };
        let begin = if is_first { out.len() } else { 0 };
        encode(out, answer, context, &shared.date);
        if let Some(recorder) = &shared.recorder {
            let written = recorder.read(&out[begin..]);
            connection.record_answer(exchange.sequence, written, begins_at, framing);
        }
        let given = match framing {
            Some(framing) => {
                shared.counters.streams_total += 1;
                connection.note_framing(framing);
                connection
                    .queue
                    .begin_stream(exchange.sequence, framing, held);
                Given::Streaming
            }
            None => {
                if is_first {
                    connection.on_first_complete(shared);
                } else {
                    connection.queue.fulfil(exchange.sequence, held);
                }
                connection.on_answered(exchange.sequence, shared);
                Given::Whole
            }
        };
        self.mark(exchange.slot);
        given
    }

    /// Sends a piece of a streamed response body. Every piece is taken, whatever is returned:
    /// `Wait` asks for a rest until `Handler::on_writable`, `Gone` says that the piece was dropped.
    /// What is beyond the announced length is cut off without a word until `end_body`.
    pub fn send_body(&mut self, exchange: ExchangeId, piece: &[u8]) -> Flow {
        let shared = &mut self.shared;
        let Some(connection) = find(&mut self.connections, exchange) else {
            return Flow::Gone;
        };
        if connection.out.capacity() == 0 {
            connection.out = shared.spares.pop().unwrap_or_default();
        }
        let before = connection.answer_bytes();
        let Connection { queue, out, .. } = connection;
        let Some(mut owed) = queue.push_piece(exchange.sequence, piece, out) else {
            return Flow::Gone;
        };
        if queue.is_first(exchange.sequence) {
            owed += connection.in_flight_bytes;
        }
        // At least one byte: who waits for nothing would wait for ever.
        let waits = owed >= shared.limits.stream_owed_bytes_max.max(1) as usize;
        connection.queue.set_waiting(exchange.sequence, waits);
        let written = connection.answer_bytes() - before;
        connection.record_piece(exchange.sequence, piece.len(), written);
        self.mark(exchange.slot);
        if waits { Flow::Wait } else { Flow::Go }
    }

    /// Ends a streamed response. `false` when its body was not as long as announced, or when nobody
    /// was there any more. A body that is too short ends the connection in its middle, so that the
    /// peer notices; one that is too long, at its announced end.
    pub fn end_body<H: Handler>(&mut self, exchange: ExchangeId, handler: &mut H) -> bool {
        let Some(connection) = find(&mut self.connections, exchange) else {
            return false;
        };
        let before = connection.answer_bytes();
        let Connection { queue, out, .. } = connection;
        let Some(end) = queue.finish_stream(exchange.sequence, out) else {
            return false;
        };
        let written = connection.answer_bytes() - before;
        connection.record_piece(exchange.sequence, 0, written);
        let reason = match end {
            BodyEnd::Complete => None,
            BodyEnd::TooShort => Some(CloseReason::AnswerIncomplete),
            BodyEnd::TooLong => Some(CloseReason::AnswerTooLong),
        };
        self.retire(exchange, reason, handler);
        reason.is_none()
    }

    /// Ends the connection in the middle of a streamed response, so that the peer cannot take what
    /// it has got for the whole. What was sent before still leaves. Where a body ends with the
    /// connection, for an HTTP/1.0 peer, only a reset can tell: it may overtake the last pieces.
    pub fn abort_body<H: Handler>(&mut self, exchange: ExchangeId, handler: &mut H) {
        if let Some(connection) = find(&mut self.connections, exchange)
            && connection.queue.is_streaming(exchange.sequence)
        {
            connection.break_off();
            self.retire(exchange, Some(CloseReason::AnswerIncomplete), handler);
        }
    }

    /// The streamed answer of this exchange is over, and with it the connection if there is a
    /// reason.
    fn retire<H: Handler>(
        &mut self,
        exchange: ExchangeId,
        reason: Option<CloseReason>,
        handler: &mut H,
    ) {
        let Some(connection) = find(&mut self.connections, exchange) else {
            return;
        };
        connection.record_end(exchange.sequence, reason);
        if let Some(reason) = reason {
            connection.end_behind(exchange, (reason, self.shared.now_us), handler);
        }
        if connection.queue.is_first(exchange.sequence) {
            connection.on_first_complete(&self.shared);
        } else {
            connection.queue.settle_stream(exchange.sequence);
        }
        connection.on_answered(exchange.sequence, &self.shared);
        self.mark(exchange.slot);
    }
}

impl Connection {
    /// The answer of this exchange is the last: what was asked behind it is abandoned.
    fn end_behind<H: Handler>(
        &mut self,
        exchange: ExchangeId,
        (reason, now_us): (CloseReason, u64),
        handler: &mut H,
    ) {
        self.stop_reading(reason);
        self.queue.truncate_after(exchange.sequence, |sequence| {
            handler.on_abandoned(
                ExchangeId {
                    sequence,
                    ..exchange
                },
                reason,
            );
        });
        self.record_truncation(exchange.sequence, reason, now_us, handler);
    }

    /// The first answer in line is in the send buffer; the next ones follow as far as they are
    /// ready.
    fn on_first_complete(&mut self, shared: &Shared) {
        let taken = self.sent_bytes + self.in_flight_bytes as u64;
        let journal = &mut self.journal;
        self.queue.release_first(&mut self.out, |sequence, at| {
            if let Some(journal) = journal {
                journal.place(sequence, taken + at as u64);
            }
        });
        self.idle_since_ms = shared.now_ms;
        self.ask_for_body(shared);
    }

    /// The answer of this exchange is complete; the body of its request may not be.
    fn on_answered(&mut self, sequence: u32, shared: &Shared) {
        if self.is_incoming(sequence) {
            self.leave_body(shared);
        }
    }

    /// Why the connection ends behind this answer, if it was not clear before and is now.
    fn reason_to_close(
        &self,
        sequence: u32,
        answer: &Answer<'_>,
        framing: Option<StreamFraming>,
        limits: &Limits,
    ) -> Option<CloseReason> {
        if answer.close || framing == Some(StreamFraming::UntilClose) {
            return Some(CloseReason::HandlerAsked);
        }
        if self.is_incoming(sequence) {
            return self.unread_by(framing, limits);
        }
        let is_last = self.is_last_of_drain(sequence);
        is_last.then_some(CloseReason::Draining)
    }

    /// Tells the producer of the streamed answer in progress to go on, if it waits and enough of
    /// what it made has left. To be asked when some has: whoever waited out of turn has made too
    /// much to go on before that.
    pub(super) fn wake_producer<H: Handler>(
        &mut self,
        slot: u32,
        limits: &Limits,
        handler: &mut H,
    ) {
        let owed = self.out.len() + self.in_flight_bytes;
        if owed <= limits.stream_owed_bytes_max as usize / 2
            && let Some(sequence) = self.queue.take_waiting_first()
        {
            handler.on_writable(ExchangeId {
                slot,
                generation: self.generation,
                sequence,
            });
        }
    }
}

/// The connection of an exchange, if it is still there.
fn find(connections: &mut slab::Slab<Connection>, exchange: ExchangeId) -> Option<&mut Connection> {
    connections
        .get_mut(exchange.slot as usize)
        .filter(|connection| connection.generation == exchange.generation)
}
