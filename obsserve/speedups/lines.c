/* Access lines of ordinary exchanges. `accesslines.py` says how a line is put together, and does the same without this.

Rules:
- No name of a field stands here but the three of a trace, and no decision about one: pieces and fragments come from Python.
- All is read and checked before the first byte is written, so that a line is whole or not there.
*/

#include "exchange.h"
#include "text.h"

#include <math.h>

typedef struct {
    char *start;
    Py_ssize_t used, size;
} Text;

static int
text_reserve(Text *text, Py_ssize_t more)
{
    if (text->size - text->used >= more) {
        return 0;
    }
    Py_ssize_t size = text->size ? text->size : 1 << 16;
    while (size - text->used < more) {
        size *= 2;
    }
    char *start = PyMem_Realloc(text->start, size);
    if (start == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    text->start = start;
    text->size = size;
    return 0;
}

static inline char *
put_seconds(char *at, unsigned long long micros)
{
    at = put_number(at, micros / 1000000);
    *at++ = '.';
    return put_six_digits(at, (unsigned)(micros % 1000000));
}

/* Of more the quotient's last decimal would not be exact. */
#define MOST_MICROS 1e12

/* Round to whole microseconds as Python does; 0 for what it has to format itself. */
static inline int
whole_micros(double micros, unsigned long long *whole)
{
    double rounded = nearbyint(micros); /* halves to even, as adding and taking away 1.5 * 2**52 does */
    if (!(rounded >= 0.0 && rounded < MOST_MICROS) || (rounded == 0.0 && signbit(rounded))) {
        return 0;
    }
    *whole = (unsigned long long)rounded;
    return 1;
}

/* Products that must not be fused with an addition that follows. */
static inline double
in_micros(double seconds)
{
    volatile double micros = seconds * 1e6;
    return micros;
}

/* What stands between the numbers of a line, in their order. */
enum { BEFORE_DURATION, BEFORE_TTFB, BEFORE_QUEUE, BEFORE_APP, AFTER_APP, ENDING, LINE_PIECES };

typedef struct {
    PyObject_HEAD
    PyObject *requests, *senders, *sizes; /* fragments, by what they say */
    PyObject *pieces, *envelope;
    PyObject *clock;
    Lag lag;
    PyObject *otherwise, *full;
    PyObject *version;
    PyObject *head, *start_head; /* a line until its fraction of a second, and from there to that of its start */
    double second;
    Py_ssize_t count, most;
    Py_ssize_t least; /* room for its pieces, its numbers and what stands around the trace's ids */
    Text text;
    Layout view, span;
    Place offset, serial;
    Memory known_requests, known_senders, known_sizes;
} Lines;

static const unsigned char line_wants[] = {
    VIEW_BEGAN, VIEW_HEAD_DONE, VIEW_BODY_DONE, VIEW_APP_STARTED, VIEW_RESPONSE_STARTED, VIEW_FIRST_BYTE, VIEW_ENDED,
    VIEW_METHOD, VIEW_PARTS, VIEW_ROUTE, VIEW_STATUS, VIEW_FIELDS, VIEW_CONNECTION, VIEW_CONNECTION_REQUEST,
    VIEW_FORWARDED_SCHEME, VIEW_FORWARDED_CLIENT, VIEW_FORWARDED_TRUSTED, VIEW_REQUEST_BODY_SIZE, VIEW_RESPONSE_BODY_SIZE,
    VIEW_REQUEST_SIZE, VIEW_RESPONSE_SIZE, VIEW_REQUEST_ID, VIEW_TRACE, VIEW_NAMES,
};

/* Hold what says the trace's ids: two texts of digits and the flags, or one text of all. */
typedef struct {
    PyObject *trace_hex, *span_hex, *fragment;
    long flags;
} Trace;

static int
trace_read(Trace *trace, Layout *layout, PyObject *span)
{
    if (span == Py_None) {
        return 0;
    }
    if (Py_TYPE(span) != layout->type && layout_of_span(layout, Py_TYPE(span)) < 0) {
        return -1;
    }
    if (!layout->offsets[SPAN_TRACE_HEX] || !layout->offsets[SPAN_FLAGS]) {
        trace->fragment = PyObject_GetAttr(span, names.log_fragment);
        return trace->fragment == NULL ? -1 : 0;
    }
    trace->trace_hex = read_attribute(layout, span, names.span, SPAN_TRACE_HEX);
    trace->span_hex = read_attribute(layout, span, names.span, SPAN_SPAN_HEX);
    PyObject *flags = read_attribute(layout, span, names.span, SPAN_FLAGS);
    if (trace->trace_hex == NULL || trace->span_hex == NULL || flags == NULL) {
        Py_XDECREF(flags);
        return -1;
    }
    trace->flags = PyLong_AsLong(flags);
    Py_DECREF(flags);
    return trace->flags == -1 && PyErr_Occurred() ? -1 : 0;
}

static void
trace_release(Trace *trace)
{
    Py_XDECREF(trace->trace_hex);
    Py_XDECREF(trace->span_hex);
    Py_XDECREF(trace->fragment);
}

/* Write the line of an ordinary exchange. Return 1, 0 when this is not the way for it, -1 with an exception set. */
static int
write_line(Lines *self, Exchange *exchange, const Trace *trace)
{
    PyObject *const *values = exchange->values;
    const double began = exchange->began, ended = exchange->ended;
    const double duration = in_micros(ended - began);
    unsigned long long total, queued, served;
    if (!whole_micros(duration, &total) || !whole_micros(in_micros(exchange->app_started - began), &queued)
        || !whole_micros(in_micros(exchange->response_started - exchange->app_started), &served)) {
        return 0;
    }
    PyObject *host = header(exchange, names.host);
    PyObject *agent = host == NULL ? NULL : header(exchange, names.user_agent);
    if (agent == NULL) {
        return -1;
    }
    PyObject *const request_key[] = {
        values[VIEW_METHOD], values[VIEW_PARTS], values[VIEW_ROUTE], values[VIEW_STATUS],
        self->version, values[VIEW_FORWARDED_SCHEME], host,
    };
    PyObject *request = look_up(exchange, &self->known_requests, self->requests, request_key, 7);
    if (!is_ascii(request)) {
        return PyErr_Occurred() ? -1 : 0;
    }
    PyObject *const sizes_key[] = {
        values[VIEW_REQUEST_BODY_SIZE], values[VIEW_RESPONSE_BODY_SIZE], values[VIEW_REQUEST_SIZE], values[VIEW_RESPONSE_SIZE],
    };
    PyObject *sizes = look_up(exchange, &self->known_sizes, self->sizes, sizes_key, 4);
    if (!is_ascii(sizes)) {
        return PyErr_Occurred() ? -1 : 0;
    }
    PyObject *serial = keep(exchange, read_place(&self->serial, values[VIEW_CONNECTION], names.serial));
    if (serial == NULL) {
        return -1;
    }
    PyObject *const sender_key[] = {serial, values[VIEW_FORWARDED_CLIENT], values[VIEW_FORWARDED_TRUSTED], agent};
    PyObject *sender = look_up(exchange, &self->known_senders, self->senders, sender_key, 4);
    if (sender == NULL || !PyTuple_CheckExact(sender) || PyTuple_GET_SIZE(sender) != 3) {
        return PyErr_Occurred() ? -1 : 0;
    }
    PyObject *client = PyTuple_GET_ITEM(sender, 0), *about = PyTuple_GET_ITEM(sender, 1),
             *listener = PyTuple_GET_ITEM(sender, 2), *request_id = values[VIEW_REQUEST_ID];
    unsigned long long number = PyLong_AsUnsignedLongLong(values[VIEW_CONNECTION_REQUEST]);
    double offset;
    if (PyErr_Occurred() || read_double(&self->offset, self->clock, names.offset, &offset) < 0) {
        return -1;
    }
    /* From here on nobody else's code runs: the second and its text belong together. */
    const double fraction = in_micros(offset + ended - self->second);
    const double start = fraction - duration;
    if (!(start >= 0.0) || !(fraction < 1e6)) {
        return 0;
    }
    if (!is_ascii(client) || !is_ascii(about) || !is_ascii(listener) || !is_ascii(request_id)
        || (trace->fragment != NULL && !is_ascii(trace->fragment))
        || (trace->trace_hex != NULL && (!is_ascii(trace->trace_hex) || !is_ascii(trace->span_hex)))) {
        return 0;
    }
    Py_ssize_t most = self->least;
    PyObject *const parts[] = {
        self->head, self->start_head, self->envelope, request, sizes, client, about, listener, request_id,
        trace->fragment, trace->trace_hex, trace->span_hex,
    };
    for (size_t n = 0; n < sizeof(parts) / sizeof(parts[0]); n++) {
        most += parts[n] == NULL ? 0 : PyUnicode_GET_LENGTH(parts[n]);
    }
    if (text_reserve(&self->text, most) < 0) {
        return -1;
    }
#define PIECE(name) at = put_ascii(at, PyTuple_GET_ITEM(self->pieces, name))
    char *at = self->text.start + self->text.used;
    at = put_ascii(at, self->head);
    at = put_six_digits(at, (unsigned)fraction);
    at = put_ascii(at, self->start_head);
    at = put_six_digits(at, (unsigned)start);
    at = put_ascii(at, self->envelope);
    at = put_ascii(at, request_id);
    if (trace->fragment != NULL) {
        at = put_ascii(at, trace->fragment);
    } else if (trace->trace_hex != NULL) {
        static const char hexadecimal[] = "0123456789abcdef";
        at = put(at, "\",\"trace_id\":\"", 14);
        at = put_ascii(at, trace->trace_hex);
        at = put(at, "\",\"span_id\":\"", 13);
        at = put_ascii(at, trace->span_hex);
        at = put(at, "\",\"trace_flags\":\"", 17);
        *at++ = hexadecimal[trace->flags >> 4 & 15];
        *at++ = hexadecimal[trace->flags & 15];
    }
    at = put_ascii(at, request);
    at = put_ascii(at, client);
    at = put_ascii(at, sizes);
    PIECE(BEFORE_DURATION);
    at = put_seconds(at, total);
    PIECE(BEFORE_TTFB);
    at = put_seconds(at, total);
    PIECE(BEFORE_QUEUE);
    at = put_seconds(at, queued);
    PIECE(BEFORE_APP);
    at = put_seconds(at, served);
    PIECE(AFTER_APP);
    at = put_ascii(at, about);
    at = put_number(at, number);
    at = put_ascii(at, listener);
    PIECE(ENDING);
#undef PIECE
    self->text.used = at - self->text.start;
    return 1;
}

static int
lines_try(Lines *self, PyObject *view)
{
    int ordinary = is_ordinary(&self->view, view);
    if (ordinary <= 0 || self->head == NULL) {
        return ordinary < 0 ? -1 : 0;
    }
    Exchange exchange;
    Trace trace = {0};
    int written = -1, overflow;
    if (exchange_read(&exchange, &self->view, view, line_wants) < 0) {
        goto done;
    }
    PyObject *status = exchange.values[VIEW_STATUS];
    if (!(exchange.began == exchange.head_done && exchange.began == exchange.body_done
          && exchange.first_byte == exchange.ended)
        || !PyLong_CheckExact(status) || PyLong_AsLongAndOverflow(status, &overflow) >= 400 || overflow) {
        written = 0;
        goto done;
    }
    int lagged = has_lagged(&self->lag, &exchange);
    if (lagged != 0) {
        written = lagged < 0 ? -1 : 0;
        goto done;
    }
    if (trace_read(&trace, &self->span, exchange.values[VIEW_TRACE]) == 0) {
        written = write_line(self, &exchange, &trace);
    }
done:
    trace_release(&trace);
    exchange_release(&exchange);
    return written;
}

static PyObject *
lines_counted(Lines *self)
{
    if (++self->count >= self->most) {
        return PyObject_CallNoArgs(self->full);
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(write_doc, "write(view)\n--\n\nAdd the line of an exchange that has ended, whatever it is.");

static PyObject *
lines_write(Lines *self, PyObject *view)
{
    int written = lines_try(self, view);
    if (written < 0 && forget_exception() < 0) {
        return NULL;
    }
    return written > 0 ? lines_counted(self) : PyObject_CallOneArg(self->otherwise, view);
}

PyDoc_STRVAR(add_doc, "add(line)\n--\n\nAdd a line that was rendered elsewhere; return its number among those that wait.");

static PyObject *
lines_add(Lines *self, PyObject *line)
{
    if (!is_ascii(line)) {
        PyErr_SetString(PyExc_ValueError, "a line holds nothing but ASCII");
        return NULL;
    }
    if (text_reserve(&self->text, PyUnicode_GET_LENGTH(line)) < 0) {
        return NULL;
    }
    put_ascii(self->text.start + self->text.used, line);
    self->text.used += PyUnicode_GET_LENGTH(line);
    const Py_ssize_t number = self->count + 1;
    PyObject *result = lines_counted(self);
    Py_XDECREF(result);
    return result == NULL ? NULL : PyLong_FromSsize_t(number);
}

PyDoc_STRVAR(take_doc, "take()\n--\n\nReturn the lines that wait, and how many they are; none wait afterwards.");

static PyObject *
lines_take(Lines *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *text = PyBytes_FromStringAndSize(self->text.start ? self->text.start : "", self->text.used);
    if (text == NULL) {
        return NULL;
    }
    const Py_ssize_t count = self->count;
    self->text.used = self->count = 0; /* before anything is made that may start a collection, which may add lines */
    return Py_BuildValue("(Nn)", text, count);
}

PyDoc_STRVAR(turn_doc,
             "turn(second, head, start_head)\n--\n\nTake the text of a new second: a line's beginning up to the microseconds "
             "of its\nend, and what stands from there to those of its start.");

static PyObject *
lines_turn(Lines *self, PyObject *args)
{
    double second;
    PyObject *head, *start_head;
    if (!PyArg_ParseTuple(args, "dUU", &second, &head, &start_head)) {
        return NULL;
    }
    if (!is_ascii(head) || !is_ascii(start_head)) {
        PyErr_SetString(PyExc_ValueError, "a line holds nothing but ASCII");
        return NULL;
    }
    self->second = second;
    hold(&self->head, head);
    hold(&self->start_head, start_head);
    Py_RETURN_NONE;
}

static int
lines_fill(Lines *self, PyObject *args, PyObject *keywords)
{
    static char *keys[] = {"requests", "senders", "sizes", "pieces", "envelope", "clock", "lag", "otherwise", "full", "most", NULL};
    PyObject *requests, *senders, *sizes, *pieces, *envelope, *clock, *lag, *otherwise, *full;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "$O!O!O!O!UOOOOn", keys, &PyDict_Type, &requests, &PyDict_Type,
                                     &senders, &PyDict_Type, &sizes, &PyTuple_Type, &pieces, &envelope, &clock, &lag,
                                     &otherwise, &full, &self->most)) {
        return -1;
    }
    int fit = PyTuple_GET_SIZE(pieces) == LINE_PIECES && is_ascii(envelope);
    self->least = 512;
    for (Py_ssize_t n = 0; fit && n < LINE_PIECES; n++) {
        fit = is_ascii(PyTuple_GET_ITEM(pieces, n));
        self->least += fit ? PyUnicode_GET_LENGTH(PyTuple_GET_ITEM(pieces, n)) : 0;
    }
    if (!fit) {
        PyErr_SetString(PyExc_ValueError, "a line has six pieces of ASCII, and an envelope");
        return -1;
    }
    hold(&self->requests, requests);
    hold(&self->senders, senders);
    hold(&self->sizes, sizes);
    hold(&self->pieces, pieces);
    hold(&self->envelope, envelope);
    hold(&self->clock, clock);
    hold(&self->lag.object, lag);
    hold(&self->otherwise, otherwise);
    hold(&self->full, full);
    Py_XSETREF(self->version, PyUnicode_InternFromString("1.1"));
    return self->version ? 0 : -1;
}

static int
lines_traverse(Lines *self, visitproc visit, void *arg)
{
    VISIT_EACH(self->requests, self->senders, self->sizes, self->clock, self->lag.object, self->otherwise, self->full,
               (PyObject *)self->view.type, (PyObject *)self->span.type, (PyObject *)self->offset.type,
               (PyObject *)self->serial.type, (PyObject *)self->lag.due.type, (PyObject *)self->lag.heartbeat.type);
    return memory_visit(&self->known_requests, visit, arg) || memory_visit(&self->known_senders, visit, arg)
           || memory_visit(&self->known_sizes, visit, arg);
}

static int
lines_clear(Lines *self)
{
    let_go(&self->otherwise);
    let_go(&self->full);
    return 0;
}

static void
lines_dealloc(Lines *self)
{
    PyObject_GC_UnTrack(self);
    Py_CLEAR(self->requests);
    Py_CLEAR(self->senders);
    Py_CLEAR(self->sizes);
    Py_CLEAR(self->clock);
    Py_CLEAR(self->lag.object);
    Py_CLEAR(self->otherwise);
    Py_CLEAR(self->full);
    layout_clear(&self->view);
    layout_clear(&self->span);
    Py_CLEAR(self->offset.type);
    Py_CLEAR(self->serial.type);
    Py_CLEAR(self->lag.due.type);
    Py_CLEAR(self->lag.heartbeat.type);
    memory_clear(&self->known_requests);
    memory_clear(&self->known_senders);
    memory_clear(&self->known_sizes);
    Py_XDECREF(self->pieces);
    Py_XDECREF(self->envelope);
    Py_XDECREF(self->version);
    Py_XDECREF(self->head);
    Py_XDECREF(self->start_head);
    PyMem_Free(self->text.start);
    Py_TYPE(self)->tp_free(self);
}

static PyObject *
lines_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    PyObject *self = type->tp_alloc(type, 0);
    if (self != NULL && lines_fill((Lines *)self, args, keywords) < 0) {
        Py_CLEAR(self);
    }
    return self;
}

static PyMethodDef lines_methods[] = {
    {"write", (PyCFunction)lines_write, METH_O, write_doc},
    {"add", (PyCFunction)lines_add, METH_O, add_doc},
    {"take", (PyCFunction)lines_take, METH_NOARGS, take_doc},
    {"turn", (PyCFunction)lines_turn, METH_VARARGS, turn_doc},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef lines_members[] = {
    {"count", T_PYSSIZET, offsetof(Lines, count), READONLY, "How many lines wait."},
    {NULL, 0, 0, 0, NULL},
};

PyTypeObject LinesType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "obsserve.speedups._native.Lines",
    .tp_doc = PyDoc_STR("Access lines that wait to be handed over."),
    .tp_basicsize = sizeof(Lines),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_new = lines_new,
    .tp_traverse = (traverseproc)lines_traverse,
    .tp_clear = (inquiry)lines_clear,
    .tp_dealloc = (destructor)lines_dealloc,
    .tp_methods = lines_methods,
    .tp_members = lines_members,
};

