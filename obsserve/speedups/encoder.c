/* Ordinary exchanges as encoded spans. `telemetry/spanencoder.py` says what a span holds, and does the same without this.

No attribute's name stands here: pieces and fragments come from Python. */

#include "exchange.h"
#include "text.h"

/* What stands between the numbers of a span. */
enum { BEFORE_WAITED, BEFORE_QUEUED, BEFORE_EVENT_TIME, ROOT_STATUS, CHILD_STATUS, SPAN_PIECES };
/* The attributes that are whole numbers; each starts by the length of its number. */
enum { REQUEST_BODY_SIZE, RESPONSE_BODY_SIZE, CONNECTION_REQUEST, SPAN_NUMBERS };
#define LONGEST_VARINT 9 /* of what an OTLP integer can hold without a sign */

typedef struct {
    PyObject_HEAD
    PyObject *answers, *targets, *senders; /* fragments, by what they say */
    PyObject *pieces, *numbers, *texts;
    PyObject *clock;
    Lag lag;
    PyObject *otherwise;
    PyObject *root_type, *child_type;
    Layout view, root, child;
    Place offset, serial;
    Memory known_answers, known_senders;
} Encoder;

static const unsigned char span_wants[] = {
    VIEW_BEGAN, VIEW_HEAD_DONE, VIEW_APP_STARTED, VIEW_FIRST_BYTE, VIEW_ENDED, VIEW_METHOD, VIEW_SCHEME,
    VIEW_HTTP_VERSION, VIEW_PARTS, VIEW_ROUTE, VIEW_STATUS, VIEW_FIELDS, VIEW_CONNECTION, VIEW_CONNECTION_REQUEST,
    VIEW_FORWARDED_CLIENT, VIEW_REQUEST_BODY_SIZE, VIEW_RESPONSE_BODY_SIZE, VIEW_REQUEST_ID, VIEW_NAMES,
};

/* What a digit of an id stands for, and one more; 0 for what is none. */
static const unsigned char digit_of[256] = {
    ['0'] = 1, ['1'] = 2, ['2'] = 3, ['3'] = 4, ['4'] = 5, ['5'] = 6, ['6'] = 7, ['7'] = 8, ['8'] = 9, ['9'] = 10,
    ['a'] = 11, ['b'] = 12, ['c'] = 13, ['d'] = 14, ['e'] = 15, ['f'] = 16,
};

/* Put the bytes of an id; 0 when the text is none. */
static inline int
put_id(char **at, PyObject *hexadecimal, Py_ssize_t size)
{
    if (!is_ascii(hexadecimal) || PyUnicode_GET_LENGTH(hexadecimal) != 2 * size) {
        return 0;
    }
    const unsigned char *text = PyUnicode_DATA(hexadecimal);
    for (Py_ssize_t n = 0; n < size; n++) {
        const unsigned high = digit_of[text[2 * n]], low = digit_of[text[2 * n + 1]];
        if (!high || !low) {
            return 0;
        }
        *(*at)++ = (char)((high - 1) << 4 | (low - 1));
    }
    return 1;
}

/* Turn seconds into whole nanoseconds; 0 for what two of could be too many, or is no number. */
static inline int
whole_nanos(double seconds, long long *nanos)
{
    if (!(seconds >= 0.0 && seconds < 4.6e9)) {
        return 0;
    }
    *nanos = (long long)(seconds * 1e9);
    return 1;
}

/* Return the encoded span of an exchange; None when this is not the way for it; NULL with an exception set. */
static PyObject *
encode_span(Encoder *self, Exchange *exchange, const Layout *layout, PyObject *span, int has_parent)
{
    PyObject *const *values = exchange->values;
    PyObject *result = NULL, *trace_hex = NULL, *span_hex = NULL, *parent_hex = NULL, *extras = NULL;
    extras = read_attribute(layout, span, names.span, SPAN_EXTRAS);
    trace_hex = read_attribute(layout, span, names.span, SPAN_TRACE_HEX);
    span_hex = read_attribute(layout, span, names.span, SPAN_SPAN_HEX);
    if (extras == NULL || trace_hex == NULL || span_hex == NULL) {
        goto done;
    }
    if (has_parent && (parent_hex = read_attribute(layout, span, names.span, SPAN_PARENT_HEX)) == NULL) {
        goto done;
    }
    if (extras != Py_None) {
        result = Py_NewRef(Py_None);
        goto done;
    }
    PyObject *host = header(exchange, names.host);
    PyObject *agent = host == NULL ? NULL : header(exchange, names.user_agent);
    PyObject *serial = agent == NULL ? NULL : keep(exchange, read_place(&self->serial, values[VIEW_CONNECTION], names.serial));
    if (serial == NULL) {
        goto done;
    }
    PyObject *const answer_key[] = {
        values[VIEW_METHOD], values[VIEW_SCHEME], values[VIEW_ROUTE], values[VIEW_STATUS], values[VIEW_HTTP_VERSION], host,
    };
    PyObject *const sender_key[] = {serial, values[VIEW_FORWARDED_CLIENT], agent};
    PyObject *answer = look_up(exchange, &self->known_answers, self->answers, answer_key, 6);
    PyObject *sender = answer == NULL ? NULL : look_up(exchange, &self->known_senders, self->senders, sender_key, 3);
    PyObject *target = sender == NULL ? NULL : PyDict_GetItemWithError(self->targets, values[VIEW_PARTS]);
    keep(exchange, Py_XNewRef(target));
    PyObject *request_id = values[VIEW_REQUEST_ID];
    if (target == NULL || !PyBytes_Check(answer) || !PyBytes_Check(sender) || !PyBytes_Check(target) || !is_ascii(request_id)
        || PyUnicode_GET_LENGTH(request_id) >= PyTuple_GET_SIZE(self->texts)) {
        result = PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
        goto done;
    }
    double offset;
    long long nanos, began, ended, first;
    if (read_double(&self->offset, self->clock, names.offset, &offset) < 0) {
        goto done;
    }
    if (!whole_nanos(offset, &nanos) || !whole_nanos(exchange->began, &began) || !whole_nanos(exchange->ended, &ended)
        || !whole_nanos(exchange->first_byte, &first)) {
        result = Py_NewRef(Py_None);
        goto done;
    }
    char content[SPAN_NUMBERS][LONGEST_VARINT];
    int lengths[SPAN_NUMBERS];
    PyObject *starts[SPAN_NUMBERS];
    static const int number_of[SPAN_NUMBERS] = {VIEW_REQUEST_BODY_SIZE, VIEW_RESPONSE_BODY_SIZE, VIEW_CONNECTION_REQUEST};
    Py_ssize_t size = 512; /* ids, times and numbers */
    for (int n = 0; n < SPAN_NUMBERS; n++) {
        long long number = PyLong_AsLongLong(values[number_of[n]]);
        if (number < 0) {
            result = PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
            goto done;
        }
        lengths[n] = (int)(put_varint(content[n], number) - content[n]);
        starts[n] = PyTuple_GET_ITEM(PyTuple_GET_ITEM(self->numbers, n), lengths[n]);
        size += PyBytes_GET_SIZE(starts[n]);
    }
    PyObject *id_start = PyTuple_GET_ITEM(self->texts, PyUnicode_GET_LENGTH(request_id));
    size += PyBytes_GET_SIZE(id_start) + PyUnicode_GET_LENGTH(request_id);
    size += PyBytes_GET_SIZE(answer) + PyBytes_GET_SIZE(sender) + PyBytes_GET_SIZE(target);
    for (int n = 0; n < SPAN_PIECES; n++) {
        size += PyBytes_GET_SIZE(PyTuple_GET_ITEM(self->pieces, n));
    }
    char fixed[4096], *start = size <= (Py_ssize_t)sizeof(fixed) ? fixed : PyMem_Malloc(size);
    if (start == NULL) {
        PyErr_NoMemory();
        goto done;
    }
#define PIECE(name) at = put_bytes(at, PyTuple_GET_ITEM(self->pieces, name))
    char *at = put(start, "\x0a\x10", 2);
    int known = put_id(&at, trace_hex, 16);
    at = put(at, "\x12\x08", 2);
    known = known && put_id(&at, span_hex, 8);
    if (has_parent) {
        at = put(at, "\x22\x08", 2);
        known = known && put_id(&at, parent_hex, 8);
    }
    if (!known) {
        result = Py_NewRef(Py_None);
        goto built;
    }
    *at++ = 0x39;
    at = put_little(at, began + nanos);
    *at++ = 0x41;
    at = put_little(at, ended + nanos);
    PIECE(BEFORE_WAITED);
    at = put_double(at, exchange->first_byte - exchange->head_done);
    PIECE(BEFORE_QUEUED);
    at = put_double(at, exchange->app_started - exchange->head_done);
    PIECE(BEFORE_EVENT_TIME);
    at = put_little(at, first + nanos);
    PIECE(has_parent ? CHILD_STATUS : ROOT_STATUS);
#undef PIECE
    at = put_bytes(at, answer);
    at = put_bytes(at, target);
    at = put_bytes(at, sender);
    for (int n = 0; n < SPAN_NUMBERS; n++) {
        at = put_bytes(at, starts[n]);
        at = put(at, content[n], lengths[n]);
    }
    at = put_bytes(at, id_start);
    at = put_ascii(at, request_id);
    result = PyBytes_FromStringAndSize(start, at - start);
built:
    if (start != fixed) {
        PyMem_Free(start);
    }
done:
    Py_XDECREF(extras);
    Py_XDECREF(trace_hex);
    Py_XDECREF(span_hex);
    Py_XDECREF(parent_hex);
    return result;
}

PyDoc_STRVAR(encode_doc, "encode(view, span)\n--\n\nReturn the span of an exchange that has ended, encoded, whatever it is.");

static PyObject *
encoder_encode(Encoder *self, PyObject *const *args, Py_ssize_t count)
{
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "encode takes an exchange and its span");
        return NULL;
    }
    PyObject *view = args[0], *span = args[1];
    const int is_child = (PyObject *)Py_TYPE(span) == self->child_type;
    if (is_child || (PyObject *)Py_TYPE(span) == self->root_type) {
        Layout *layout = is_child ? &self->child : &self->root;
        if (layout->type == NULL && layout_of_span(layout, Py_TYPE(span)) < 0) {
            return NULL;
        }
        if (is_ordinary(&self->view, view) > 0) {
            Exchange exchange;
            PyObject *result = NULL;
            if (exchange_read(&exchange, &self->view, view, span_wants) == 0) {
                int lagged = has_lagged(&self->lag, &exchange);
                if (lagged >= 0) {
                    result = lagged ? Py_NewRef(Py_None) : encode_span(self, &exchange, layout, span, is_child);
                }
            }
            exchange_release(&exchange);
            if (result != NULL && result != Py_None) {
                return result;
            }
            Py_XDECREF(result);
        }
        if (forget_exception() < 0) {
            return NULL;
        }
    }
    return PyObject_Vectorcall(self->otherwise, args, 2, NULL);
}

static int
are_bytes(PyObject *tuple, Py_ssize_t count)
{
    int fit = PyTuple_CheckExact(tuple) && PyTuple_GET_SIZE(tuple) == count;
    for (Py_ssize_t n = 0; fit && n < count; n++) {
        fit = PyBytes_CheckExact(PyTuple_GET_ITEM(tuple, n));
    }
    return fit;
}

static int
encoder_fill(Encoder *self, PyObject *args, PyObject *keywords)
{
    static char *keys[] = {"answers", "targets", "senders", "pieces", "numbers", "texts", "clock", "lag", "otherwise", "root", "child", NULL};
    PyObject *answers, *targets, *senders, *pieces, *numbers, *texts, *clock, *lag, *otherwise, *root, *child;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "$O!O!O!O!O!O!OOOO!O!", keys, &PyDict_Type, &answers, &PyDict_Type,
                                     &targets, &PyDict_Type, &senders, &PyTuple_Type, &pieces, &PyTuple_Type, &numbers,
                                     &PyTuple_Type, &texts, &clock, &lag, &otherwise, &PyType_Type, &root, &PyType_Type,
                                     &child)) {
        return -1;
    }
    int fit = are_bytes(pieces, SPAN_PIECES) && PyTuple_GET_SIZE(numbers) == SPAN_NUMBERS
              && are_bytes(texts, PyTuple_GET_SIZE(texts));
    for (Py_ssize_t n = 0; fit && n < SPAN_NUMBERS; n++) {
        fit = are_bytes(PyTuple_GET_ITEM(numbers, n), LONGEST_VARINT + 1);
    }
    if (!fit) {
        PyErr_SetString(PyExc_ValueError, "a span has five pieces, three numbers and a text, in bytes");
        return -1;
    }
    hold(&self->answers, answers);
    hold(&self->targets, targets);
    hold(&self->senders, senders);
    hold(&self->pieces, pieces);
    hold(&self->numbers, numbers);
    hold(&self->texts, texts);
    hold(&self->clock, clock);
    hold(&self->lag.object, lag);
    hold(&self->otherwise, otherwise);
    hold(&self->root_type, root);
    hold(&self->child_type, child);
    return 0;
}

static int
encoder_traverse(Encoder *self, visitproc visit, void *arg)
{
    VISIT_EACH(self->answers, self->targets, self->senders, self->clock, self->lag.object, self->otherwise, self->root_type,
               self->child_type, (PyObject *)self->view.type, (PyObject *)self->root.type, (PyObject *)self->child.type,
               (PyObject *)self->offset.type, (PyObject *)self->serial.type, (PyObject *)self->lag.due.type,
               (PyObject *)self->lag.heartbeat.type);
    return memory_visit(&self->known_answers, visit, arg) || memory_visit(&self->known_senders, visit, arg);
}

static int
encoder_clear(Encoder *self)
{
    let_go(&self->otherwise);
    return 0;
}

static void
encoder_dealloc(Encoder *self)
{
    PyObject_GC_UnTrack(self);
    Py_CLEAR(self->answers);
    Py_CLEAR(self->targets);
    Py_CLEAR(self->senders);
    Py_CLEAR(self->clock);
    Py_CLEAR(self->lag.object);
    Py_CLEAR(self->otherwise);
    Py_CLEAR(self->root_type);
    Py_CLEAR(self->child_type);
    layout_clear(&self->view);
    layout_clear(&self->root);
    layout_clear(&self->child);
    Py_CLEAR(self->offset.type);
    Py_CLEAR(self->serial.type);
    Py_CLEAR(self->lag.due.type);
    Py_CLEAR(self->lag.heartbeat.type);
    memory_clear(&self->known_answers);
    memory_clear(&self->known_senders);
    Py_XDECREF(self->pieces);
    Py_XDECREF(self->numbers);
    Py_XDECREF(self->texts);
    Py_TYPE(self)->tp_free(self);
}

static PyObject *
encoder_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    PyObject *self = type->tp_alloc(type, 0);
    if (self != NULL && encoder_fill((Encoder *)self, args, keywords) < 0) {
        Py_CLEAR(self);
    }
    return self;
}

static PyMethodDef encoder_methods[] = {
    {"encode", (PyCFunction)(void (*)(void))encoder_encode, METH_FASTCALL, encode_doc},
    {NULL, NULL, 0, NULL},
};

PyTypeObject EncoderType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "obsserve.speedups._native.Encoder",
    .tp_doc = PyDoc_STR("Encodes the spans of exchanges."),
    .tp_basicsize = sizeof(Encoder),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_new = encoder_new,
    .tp_traverse = (traverseproc)encoder_traverse,
    .tp_clear = (inquiry)encoder_clear,
    .tp_dealloc = (destructor)encoder_dealloc,
    .tp_methods = encoder_methods,
};
