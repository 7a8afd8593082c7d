//! The few places where the safe API of PyO3 costs more than the work it guards.
//!
//! Owns all `unsafe` of the Python layer; refuses to hold any logic. Each piece is here because a
//! benchmark (`benchmarks/micro/boundary.py`) shows its price without it. The invariants P1 to P7
//! are in SAFETY.md.

#![allow(unsafe_code)] // The second of the project's two homes for unsafe code.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::time::{Duration, Instant};

use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple, PyType};

use super::view::BodyBytes;
use crate::server;

/// State of a native object that only threads holding the GIL touch.
///
/// A `RefCell` that may be a field of a pyclass. A mutex in its place costs two atomic operations
/// per access, on every access to every attribute.
#[derive(Debug)]
pub struct GilCell<T>(RefCell<T>);

// SAFETY: P1. Every access goes through `borrow` or `borrow_mut`, which want proof that the GIL is
// held, so no two threads are inside at a time; the module asks for the GIL (`gil_used`) where it
// can be absent.
unsafe impl<T> Sync for GilCell<T> {}
// SAFETY: P1. A value moves between threads only together with the object that holds it, under the
// GIL.
unsafe impl<T> Send for GilCell<T> {}

impl<T> GilCell<T> {
    pub fn new(value: T) -> Self {
        Self(RefCell::new(value))
    }

    pub fn borrow(&self, _py: Python<'_>) -> std::cell::Ref<'_, T> {
        self.0.borrow()
    }

    /// For the garbage collector's visits, which are made with the GIL held but without a token.
    /// `None` while the value is being changed.
    pub fn visit(&self) -> Option<std::cell::Ref<'_, T>> {
        self.0.try_borrow().ok()
    }

    pub fn borrow_mut(&self, _py: Python<'_>) -> std::cell::RefMut<'_, T> {
        self.0.borrow_mut()
    }
}

/// A request of the core, visible to a Python object for the length of one call and not longer.
#[derive(Debug, Default)]
pub struct Loan(Cell<Option<NonNull<server::Request<'static>>>>);

impl Loan {
    /// Makes the request visible through `with` while `call` runs.
    pub fn during<R>(&self, request: &server::Request<'_>, call: impl FnOnce() -> R) -> R {
        /// Ends the loan on every way out, a panic included.
        struct End<'a>(&'a Loan);
        impl Drop for End<'_> {
            fn drop(&mut self) {
                self.0.0.set(None);
            }
        }
        // The lifetime is forgotten here and comes back, shortened, in `with`.
        self.0.set(Some(NonNull::from(request).cast()));
        let _end = End(self);
        call()
    }

    /// Looks at the request, if a loan is on. The closure runs no Python code.
    pub fn with<R>(&self, look: impl FnOnce(Option<&server::Request<'_>>) -> R) -> R {
        let request = self.0.get().map(|pointer| {
            // SAFETY: P2. The pointer is set only by `during`, whose argument outlives the call,
            // and is cleared before `during` returns; it is only ever read.
            unsafe { pointer.as_ref() }
        });
        look(request)
    }
}

/// Runs `wait` without the GIL. `wait` must not touch a Python object: its caller is the worker's
/// turn, whose reactor knows none. PyO3's `detach` wants `Send`, which a ring that is bound to its
/// thread is not.
pub fn without_gil<R>(_py: Python<'_>, wait: impl FnOnce() -> R) -> R {
    /// Takes the GIL back on every way out.
    struct Restore(*mut ffi::PyThreadState);
    impl Drop for Restore {
        fn drop(&mut self) {
            // SAFETY: P3. The state is the one that this thread saved in `without_gil`, restored
            // once.
            unsafe { ffi::PyEval_RestoreThread(self.0) }
        }
    }
    // SAFETY: P3. `_py` proves that this thread holds the GIL.
    let state = unsafe { ffi::PyEval_SaveThread() };
    let _restore = Restore(state);
    wait()
}

/// The same, and how long it took after the wait to have the GIL again.
pub fn without_gil_timed<R>(py: Python<'_>, wait: impl FnOnce() -> R) -> (R, Duration) {
    let (result, waited_until) = without_gil(py, || (wait(), Instant::now()));
    (result, waited_until.elapsed())
}

/// Calls with one argument: where the callable has a vectorcall entry (PEP 590), as functions,
/// methods and classes do, through that. `PyObject_CallOneArg` finds the same entry, but looks up
/// the thread first and checks the result, which `from_owned_ptr_or_err` does again.
#[inline]
pub fn call_one<'py>(
    callable: &Bound<'py, PyAny>,
    argument: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: P4. The pointer is alive for the call.
    let entry = unsafe { ffi::PyVectorcall_Function(callable.as_ptr()) };
    let Some(entry) = entry else {
        return callable.call1((argument,));
    };
    // A method puts its object into the first place while it passes the call on.
    let mut places = [std::ptr::null_mut(), argument.as_ptr()];
    let arguments = places.as_mut_ptr().wrapping_add(1);
    let count = 1 | FIRST_PLACE_IS_FREE;
    let names = std::ptr::null_mut();
    // SAFETY: P4. The pointers are alive for the call, which may write to the place in front of
    // the one argument.
    let result = unsafe { entry(callable.as_ptr(), arguments, count, names) };
    // SAFETY: P4. The call returns a new reference, or null with an exception set.
    let result = unsafe { Bound::from_owned_ptr_or_err(callable.py(), result) };
    debug_assert!(
        result.is_err() || !PyErr::occurred(callable.py()),
        "a result and an exception"
    );
    result
}

/// `PY_VECTORCALL_ARGUMENTS_OFFSET`, which PyO3 does not have before Python 3.12.
const FIRST_PLACE_IS_FREE: usize = 1 << (usize::BITS - 1);

/// Makes a context the current one. A `TypeError` if it is none, a `RuntimeError` if it is entered
/// already.
pub fn enter_context(context: &Bound<'_, PyAny>) -> PyResult<()> {
    call_with_context(context, ffi::PyContext_Enter)
}

/// Makes the context before this one the current one again. A `RuntimeError` if another one is
/// current.
pub fn exit_context(context: &Bound<'_, PyAny>) -> PyResult<()> {
    call_with_context(context, ffi::PyContext_Exit)
}

#[inline]
fn call_with_context(
    context: &Bound<'_, PyAny>,
    call: unsafe extern "C" fn(*mut ffi::PyObject) -> std::ffi::c_int,
) -> PyResult<()> {
    // SAFETY: P4. The pointer is alive; both calls check the type and what is entered, and keep a
    // reference of their own.
    let status = unsafe { call(context.as_ptr()) };
    if status == 0 {
        Ok(())
    } else {
        Err(PyErr::fetch(context.py()))
    }
}

/// Whether a mapping is empty; also false for what is none. Asked for every request: the sequence
/// protocol, which `PyAny::len` tries first, would cost four times as much.
#[inline]
pub fn is_empty_mapping(mapping: &Bound<'_, PyAny>) -> bool {
    // SAFETY: P4. The pointer is alive for the call.
    let len = unsafe { ffi::PyMapping_Size(mapping.as_ptr()) };
    if len < 0 {
        // The exception must not stay set.
        drop(PyErr::take(mapping.py()));
    }
    len == 0
}

/// Whether this reference is the only one, so that the object can be used again.
pub fn is_only_ours<T>(object: &Bound<'_, T>) -> bool {
    // SAFETY: P4. The pointer is alive, and the GIL keeps the count still.
    unsafe { ffi::Py_REFCNT(object.as_ptr()) == 1 }
}

/// A str with its UTF-8 form at hand.
#[derive(Debug)]
pub struct Utf8 {
    /// Keeps `bytes` alive.
    text: Py<PyString>,
    bytes: NonNull<[u8]>,
}

impl Utf8 {
    /// Holds the str. An error means lone surrogates, which have no UTF-8 form.
    pub fn new(text: &Bound<'_, PyString>) -> PyResult<Self> {
        let bytes = NonNull::from(text.to_str()?.as_bytes());
        Ok(Self {
            text: text.clone().unbind(),
            bytes,
        })
    }

    pub fn as_bytes(&self) -> &[u8] {
        // SAFETY: P6. The bytes belong to the str, which never changes them and is held by `text`.
        unsafe { self.bytes.as_ref() }
    }

    /// Lets go of the str, without asking whether the GIL is held.
    pub fn drop_ref(self, py: Python<'_>) {
        self.text.drop_ref(py);
    }
}

/// What a step of a coroutine led to.
pub enum Sent<'py> {
    Returned(Bound<'py, PyAny>),
    Yielded(Bound<'py, PyAny>),
}

/// Runs a coroutine up to its first suspension or its end, without a `StopIteration` object.
pub fn send_none<'py>(coroutine: &Bound<'py, PyAny>) -> PyResult<Sent<'py>> {
    let py = coroutine.py();
    let none = py.None();
    let mut result = std::ptr::null_mut();
    // SAFETY: P4. The pointers are alive for the call; `result` is written before it returns.
    let status = unsafe { ffi::PyIter_Send(coroutine.as_ptr(), none.as_ptr(), &raw mut result) };
    // SAFETY: P4. `result` is a new reference, or null with an exception set.
    let result = unsafe { Bound::from_owned_ptr_or_err(py, result) }?;
    Ok(match status {
        ffi::PySendResult::PYGEN_NEXT => Sent::Yielded(result),
        _ => Sent::Returned(result),
    })
}

#[pymethods]
impl BodyBytes {
    /// Shows the bytes through the buffer protocol, read-only. Every view holds the object.
    ///
    /// # Safety
    /// Only the interpreter calls it, with a view that is to be filled.
    unsafe fn __getbuffer__(
        slf: Bound<'_, Self>,
        view: *mut ffi::Py_buffer,
        flags: std::ffi::c_int,
    ) -> PyResult<()> {
        let py = slf.py();
        let (object, bytes) = (
            slf.as_ptr(),
            slf.get().look(py, |bytes| NonNull::from(bytes)),
        );
        let len = bytes.len() as ffi::Py_ssize_t;
        let start = bytes.as_ptr().cast::<std::ffi::c_void>();
        // SAFETY: P7. The bytes neither move nor change while the object lives, and the view holds
        // it; `view` is the interpreter's to be filled.
        let status = unsafe { ffi::PyBuffer_FillInfo(view, object, start, len, READ_ONLY, flags) };
        if status < 0 {
            return Err(PyErr::fetch(py));
        }
        Ok(())
    }
}

/// What `PyBuffer_FillInfo` takes for a buffer that nobody may write to.
const READ_ONLY: std::ffi::c_int = 1;

/// The entry point of `Request.Response`. Positional values are `values[..count]`, the rest belong
/// to `names`.
///
/// # Safety
/// Only the interpreter calls it, under the fast-call convention of its method definition.
unsafe extern "C" fn response_entry(
    request: *mut ffi::PyObject,
    values: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: P5. The interpreter calls methods with the GIL held.
    let py = unsafe { Python::assume_attached() };
    let [request, names] = [request, names].map(|object| {
        // SAFETY: P5. Both are borrowed references, alive for the call; `names` may be null.
        unsafe { Borrowed::from_ptr_or_opt(py, object) }
    });
    let names = names.and_then(|names| names.cast::<PyTuple>().ok());
    let named = names.map_or(0, |names| names.len());
    let total = count as usize + named;
    let values: &[Option<Borrowed<'_, '_, PyAny>>] = if total == 0 {
        &[]
    } else {
        // SAFETY: P5. The array has `count` values and one more per name; none of them is null, and
        // a `Borrowed` in an `Option` is laid out as the pointer it wraps (null-pointer
        // optimisation).
        unsafe { std::slice::from_raw_parts(values.cast(), total) }
    };
    // A panic may not cross into the interpreter; there it would abort the process.
    let respond = || {
        let request = request.expect("invariant: a method is called on an object");
        super::factory::respond(&request, values, names)
    };
    let result = catch_unwind(AssertUnwindSafe(respond))
        .unwrap_or_else(|_| Err(PyRuntimeError::new_err("anel: panic in Request.Response")));
    match result {
        Ok(response) => response.into_ptr(),
        Err(error) => {
            error.restore(py);
            std::ptr::null_mut()
        }
    }
}

/// Adds the method to the type as a method descriptor, the form that the interpreter specialises
/// calls for: no bound method, no argument tuple, no dictionary of keywords.
pub fn add_fast_method(
    class: &Bound<'_, PyType>,
    name: &'static std::ffi::CStr,
    doc: &'static std::ffi::CStr,
) -> PyResult<()> {
    let py = class.py();
    // A method definition has to outlive its type, and the type lives as long as the process.
    let definition = Box::leak(Box::new(ffi::PyMethodDef {
        ml_name: name.as_ptr(),
        ml_meth: ffi::PyMethodDefPointer {
            PyCFunctionFastWithKeywords: response_entry,
        },
        ml_flags: ffi::METH_FASTCALL | ffi::METH_KEYWORDS,
        ml_doc: doc.as_ptr(),
    }));
    // SAFETY: P5. The type is alive and the definition is never freed.
    let descriptor = unsafe { ffi::PyDescr_NewMethod(class.as_type_ptr(), definition) };
    // SAFETY: P5. A new reference, or null with an exception set.
    let descriptor = unsafe { Bound::from_owned_ptr_or_err(py, descriptor) }?;
    let name = name
        .to_str()
        .map_err(|_| PyRuntimeError::new_err("method name is not UTF-8"))?;
    class.setattr(name, descriptor)
}
