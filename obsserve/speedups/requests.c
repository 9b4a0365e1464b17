/* Requests to a collector: what is around encoded spans, and before each. `otlp_encode.py` says what that is. */

#include "exchange.h"
#include "text.h"

#define RESOURCE_SPANS 0x0a /* ExportTraceServiceRequest.resource_spans; of logs and metrics it is the same number */
#define SCOPE_SPANS 0x12    /* ResourceSpans.scope_spans */
#define SPAN 0x12           /* ScopeSpans.spans */

static inline Py_ssize_t
varint_size(unsigned long long number)
{
    Py_ssize_t size = 1;
    while (number >>= 7) {
        size++;
    }
    return size;
}

static inline char *
put_delimited(char *at, int tag, unsigned long long size)
{
    *at++ = (char)tag;
    return put_varint(at, size);
}

PyObject *
request(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    if (count != 3 || !PyBytes_CheckExact(args[0]) || !PyBytes_CheckExact(args[1]) || !PyList_CheckExact(args[2])) {
        PyErr_SetString(PyExc_TypeError, "request takes a resource and a scope in bytes, and a list of encoded spans");
        return NULL;
    }
    PyObject *resource = args[0], *scope = args[1], *spans = args[2];
    unsigned long long inner = PyBytes_GET_SIZE(scope);
    for (Py_ssize_t n = 0; n < PyList_GET_SIZE(spans); n++) {
        PyObject *span = PyList_GET_ITEM(spans, n);
        if (!PyBytes_CheckExact(span)) {
            PyErr_SetString(PyExc_TypeError, "an encoded span is bytes");
            return NULL;
        }
        inner += 1 + varint_size(PyBytes_GET_SIZE(span)) + PyBytes_GET_SIZE(span);
    }
    const unsigned long long outer = PyBytes_GET_SIZE(resource) + 1 + varint_size(inner) + inner;
    PyObject *result = PyBytes_FromStringAndSize(NULL, 1 + varint_size(outer) + outer);
    if (result == NULL) {
        return NULL;
    }
    char *at = put_delimited(PyBytes_AS_STRING(result), RESOURCE_SPANS, outer);
    at = put_bytes(at, resource);
    at = put_delimited(at, SCOPE_SPANS, inner);
    at = put_bytes(at, scope);
    for (Py_ssize_t n = 0; n < PyList_GET_SIZE(spans); n++) {
        PyObject *span = PyList_GET_ITEM(spans, n);
        at = put_delimited(at, SPAN, PyBytes_GET_SIZE(span));
        at = put_bytes(at, span);
    }
    return result;
}
