/* Encoded spans that wait to be exported, one after the other as a request to the collector holds them. `Spans` of
`telemetry/spanqueue.py` does the same with an object for each, whose memory is then everywhere.

Rules:
- A buffer goes from hand to hand: appended to, taken as a batch, put into a request, and appended to again.
- Whoever appends and whoever takes may be two threads: nothing here lets go of the interpreter's lock in between. */

#include "exchange.h"
#include "text.h"

#define RESOURCE_SPANS 0x0a /* ExportTraceServiceRequest.resource_spans; of logs and metrics it is the same number */
#define SCOPE_SPANS 0x12    /* ResourceSpans.scope_spans */
#define SPAN 0x12           /* ScopeSpans.spans */

#define FIRST_ROOM (64 * 1024)   /* of a buffer */
#define LARGEST_KEPT (1024 * 1024) /* a larger one is not kept for the next spans */

typedef struct {
    char *data;
    Py_ssize_t room, begin, end; /* what is in use: from the beginning to the end */
    Py_ssize_t count;            /* of spans */
} Buffer;

typedef struct {
    PyObject_HEAD
    Buffer buffer, spare;
} Spans;

typedef struct {
    PyObject_HEAD
    Spans *source; /* gets the buffer back */
    Buffer buffer;
    Py_ssize_t number, at; /* the span that is likely to be asked for next, and where it is */
} Batch;

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

/* Make room for more behind the end; -1 with an exception set. */
static int
make_room(Buffer *buffer, Py_ssize_t more)
{
    const Py_ssize_t used = buffer->end - buffer->begin;
    if (more <= buffer->room - buffer->end) {
        return 0;
    }
    /* Not for each span: only when as much is free before them as they take. */
    if (buffer->begin < used || more > buffer->room - used) {
        if (more > PY_SSIZE_T_MAX / 4 - used) {
            PyErr_NoMemory();
            return -1;
        }
        Py_ssize_t room = buffer->room < FIRST_ROOM ? FIRST_ROOM : buffer->room;
        while (room < used + more) {
            room *= 2;
        }
        if (room == buffer->room) {
            room *= 2;
        }
        char *data = PyMem_Malloc(room);
        if (data == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        if (used) {
            memcpy(data, buffer->data + buffer->begin, used);
        }
        PyMem_Free(buffer->data);
        buffer->data = data;
        buffer->room = room;
    } else {
        memmove(buffer->data, buffer->data + buffer->begin, used);
    }
    buffer->begin = 0;
    buffer->end = used;
    return 0;
}

static void
buffer_empty(Buffer *buffer)
{
    if (buffer->room > LARGEST_KEPT) {
        PyMem_Free(buffer->data);
        buffer->data = NULL;
        buffer->room = 0;
    }
    buffer->begin = buffer->end = buffer->count = 0;
}

/* Read the size of the span whose tag is at this place, and go to its first byte. */
static inline Py_ssize_t
span_size(const Buffer *buffer, Py_ssize_t *at)
{
    Py_ssize_t size = 0;
    int shift = 0;
    unsigned char byte;
    (*at)++;
    do {
        byte = (unsigned char)buffer->data[(*at)++];
        size |= (Py_ssize_t)(byte & 0x7f) << shift;
        shift += 7;
    } while (byte & 0x80);
    return size;
}

/* --- Those that wait -------------------------------------------------------------------------*/

PyDoc_STRVAR(append_doc, "append(span)\n--\n\nAdd an encoded span.");

static PyObject *
spans_append(Spans *self, PyObject *span)
{
    if (!PyBytes_CheckExact(span)) {
        PyErr_SetString(PyExc_TypeError, "an encoded span is bytes");
        return NULL;
    }
    const Py_ssize_t size = PyBytes_GET_SIZE(span);
    if (make_room(&self->buffer, size + 1 + varint_size(size)) < 0) {
        return NULL;
    }
    char *at = put_delimited(self->buffer.data + self->buffer.end, SPAN, size);
    self->buffer.end = put_bytes(at, span) - self->buffer.data;
    self->buffer.count++;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(take_doc, "take(count)\n--\n\nRemove the first so many and return them, as a sequence.");

static PyObject *
spans_take(Spans *self, PyObject *number)
{
    const Py_ssize_t asked = PyLong_AsSsize_t(number);
    if (asked < 0) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_ValueError, "the number of spans to take is negative");
        }
        return NULL;
    }
    Batch *batch = PyObject_New(Batch, &BatchType);
    if (batch == NULL) {
        return NULL;
    }
    batch->source = NULL;
    batch->buffer = (Buffer){0};
    batch->number = batch->at = 0;
    Buffer *from = &self->buffer;
    Py_ssize_t at = from->end;
    const Py_ssize_t count = asked < from->count ? asked : from->count;
    if (count < from->count) {
        at = from->begin;
        for (Py_ssize_t n = 0; n < count; n++) {
            const Py_ssize_t size = span_size(from, &at);
            at += size;
        }
    }
    const Py_ssize_t taken = at - from->begin, left = from->end - at;
    /* Whichever is less is copied: else a long queue would be copied again for each batch of it. */
    Buffer *copy = taken < left ? &batch->buffer : &self->spare;
    if (make_room(copy, taken < left ? taken : left) < 0) {
        Py_DECREF(batch);
        return NULL;
    }
    if (taken < left) {
        if (taken) {
            memcpy(copy->data, from->data + from->begin, taken);
        }
        copy->end = taken;
        from->begin = at;
        from->count -= count;
    } else {
        if (left) {
            memcpy(copy->data, from->data + at, left);
        }
        copy->end = left;
        copy->count = from->count - count;
        batch->buffer = *from;
        batch->buffer.end = at;
        self->buffer = *copy;
        self->spare = (Buffer){0};
    }
    batch->buffer.count = count;
    batch->at = batch->buffer.begin;
    batch->source = (Spans *)Py_NewRef(self);
    return (PyObject *)batch;
}

PyDoc_STRVAR(clear_doc, "clear()\n--\n\nRemove all.");

static PyObject *
spans_clear(Spans *self, PyObject *Py_UNUSED(ignored))
{
    buffer_empty(&self->buffer);
    Py_RETURN_NONE;
}

static Py_ssize_t
spans_length(Spans *self)
{
    return self->buffer.count;
}

static PyObject *
spans_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static char *keys[] = {NULL};
    return PyArg_ParseTupleAndKeywords(args, keywords, "", keys) ? type->tp_alloc(type, 0) : NULL;
}

static void
spans_dealloc(Spans *self)
{
    PyMem_Free(self->buffer.data);
    PyMem_Free(self->spare.data);
    Py_TYPE(self)->tp_free(self);
}

static PyMethodDef spans_methods[] = {
    {"append", (PyCFunction)spans_append, METH_O, append_doc},
    {"take", (PyCFunction)spans_take, METH_O, take_doc},
    {"clear", (PyCFunction)spans_clear, METH_NOARGS, clear_doc},
    {NULL, NULL, 0, NULL},
};

static PySequenceMethods spans_sequence = {.sq_length = (lenfunc)spans_length};

PyTypeObject SpansType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "obsserve.speedups._native.Spans",
    .tp_doc = PyDoc_STR("Encoded spans that wait."),
    .tp_basicsize = sizeof(Spans),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = spans_new,
    .tp_dealloc = (destructor)spans_dealloc,
    .tp_methods = spans_methods,
    .tp_as_sequence = &spans_sequence,
};

/* --- Those that are taken --------------------------------------------------------------------*/

static Py_ssize_t
batch_length(Batch *self)
{
    return self->buffer.count;
}

static PyObject *
batch_item(Batch *self, Py_ssize_t number)
{
    if (number < 0 || number >= self->buffer.count) {
        PyErr_SetString(PyExc_IndexError, "the batch has no such span");
        return NULL;
    }
    if (number < self->number) {
        self->number = 0;
        self->at = self->buffer.begin;
    }
    for (;;) {
        Py_ssize_t at = self->at;
        const Py_ssize_t size = span_size(&self->buffer, &at);
        const Py_ssize_t here = self->number++;
        self->at = at + size;
        if (here == number) {
            return PyBytes_FromStringAndSize(self->buffer.data + at, size);
        }
    }
}

static void
batch_dealloc(Batch *self)
{
    Spans *source = self->source;
    if (source != NULL && source->spare.data == NULL && self->buffer.room <= LARGEST_KEPT) {
        buffer_empty(&self->buffer);
        source->spare = self->buffer;
    } else {
        PyMem_Free(self->buffer.data);
    }
    Py_XDECREF(source);
    PyObject_Free(self);
}

static PySequenceMethods batch_sequence = {.sq_length = (lenfunc)batch_length, .sq_item = (ssizeargfunc)batch_item};

PyTypeObject BatchType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "obsserve.speedups._native.Batch",
    .tp_doc = PyDoc_STR("Encoded spans that were taken together."),
    .tp_basicsize = sizeof(Batch),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_dealloc = (destructor)batch_dealloc,
    .tp_as_sequence = &batch_sequence,
};

/* --- Requests --------------------------------------------------------------------------------*/

PyObject *
request(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    if (count != 3 || !PyBytes_CheckExact(args[0]) || !PyBytes_CheckExact(args[1]) || !Py_IS_TYPE(args[2], &BatchType)) {
        PyErr_SetString(PyExc_TypeError, "request takes a resource and a scope in bytes, and a batch of encoded spans");
        return NULL;
    }
    PyObject *resource = args[0], *scope = args[1];
    const Buffer *spans = &((Batch *)args[2])->buffer;
    const unsigned long long size = spans->end - spans->begin, inner = PyBytes_GET_SIZE(scope) + size;
    const unsigned long long outer = PyBytes_GET_SIZE(resource) + 1 + varint_size(inner) + inner;
    PyObject *result = PyBytes_FromStringAndSize(NULL, 1 + varint_size(outer) + outer);
    if (result == NULL) {
        return NULL;
    }
    char *at = put_delimited(PyBytes_AS_STRING(result), RESOURCE_SPANS, outer);
    at = put_bytes(at, resource);
    at = put_delimited(at, SCOPE_SPANS, inner);
    at = put_bytes(at, scope);
    if (size) {
        memcpy(at, spans->data + spans->begin, size);
    }
    return result;
}
