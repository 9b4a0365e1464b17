/* Beginning and end of ordinary spans. `telemetry/tracing.py` says what they are, and does the same without this.

What begins or ends a span here and what does so there may be mixed: they share the queue, the rows and the ids. */

#include "exchange.h"

#define SAMPLED 1
#define RANDOM 2

typedef struct {
    PyObject_HEAD
    PyObject *ids, *fill;      /* the pool of ids, and what fills it */
    PyObject *slots;           /* memoryview('d') */
    PyObject *limits;          /* of what the application may set on a span */
    PyObject *variable, *attach; /* what makes a span the current one: a variable if there is one, else a function */
    PyObject *queue, *waiting, *append, *wake, *refuse;
    PyObject *encode;
    PyObject *start_otherwise, *end_otherwise;
    PyObject *root_type, *child_type;
    Py_ssize_t root_kept, root_left_out;
    int keeps_all;
    unsigned long long bound;  /* ids below it are kept */
    Py_ssize_t open;
    Layout view, root, child;
    Place room, wake_at;
} Tracer;

/* Take the last ids out of the pool. Return 0, or -1 with an exception set. */
static int
draw(Tracer *self, PyObject **trace_hex, PyObject **span_hex, unsigned long long *lower)
{
    if (PyList_GET_SIZE(self->ids) == 0) {
        PyObject *filled = PyObject_CallNoArgs(self->fill);
        if (filled == NULL) {
            return -1;
        }
        Py_DECREF(filled);
    }
    const Py_ssize_t last = PyList_GET_SIZE(self->ids) - 1;
    PyObject *drawn = last < 0 ? NULL : PyList_GET_ITEM(self->ids, last);
    if (drawn == NULL || !PyTuple_CheckExact(drawn) || PyTuple_GET_SIZE(drawn) != 3) {
        PyErr_SetString(PyExc_TypeError, "the pool holds no ids");
        return -1;
    }
    *lower = PyLong_AsUnsignedLongLong(PyTuple_GET_ITEM(drawn, 0));
    if (PyErr_Occurred()) {
        return -1;
    }
    *trace_hex = Py_NewRef(PyTuple_GET_ITEM(drawn, 1));
    *span_hex = Py_NewRef(PyTuple_GET_ITEM(drawn, 2));
    return PyList_SetSlice(self->ids, last, last + 1, NULL);
}

/* Make a span the current one of a context that nobody has entered yet; -1 with an exception set. */
static int
make_current(Tracer *self, PyObject *context, PyObject *span)
{
    if (self->variable == NULL) {
        PyObject *result = PyObject_CallMethodObjArgs(context, names.run, self->attach, span, NULL);
        Py_XDECREF(result);
        return result == NULL ? -1 : 0;
    }
    if (PyContext_Enter(context) < 0) {
        return -1;
    }
    PyObject *token = PyContextVar_Set(self->variable, span);
    int left = PyContext_Exit(context);
    Py_XDECREF(token);
    return token == NULL ? -1 : left;
}

/* Make the span of a request that brings no trace context: NULL with an exception set. */
static PyObject *
make_root(Tracer *self, int *kept)
{
    PyObject *trace_hex = NULL, *span_hex = NULL, *span = NULL;
    unsigned long long lower;
    if (draw(self, &trace_hex, &span_hex, &lower) == 0) {
        span = PyType_GenericAlloc((PyTypeObject *)self->root_type, 0);
    }
    if (span == NULL) {
        Py_XDECREF(trace_hex);
        Py_XDECREF(span_hex);
        return NULL;
    }
    *kept = self->keeps_all || lower < self->bound;
    *slot_of(&self->root, span, SPAN_TRACE_HEX) = trace_hex;
    *slot_of(&self->root, span, SPAN_SPAN_HEX) = span_hex;
    *slot_of(&self->root, span, SPAN_FLAGS) = PyLong_FromLong(*kept ? SAMPLED | RANDOM : RANDOM);
    *slot_of(&self->root, span, SPAN_EXTRAS) = Py_NewRef(Py_None);
    *slot_of(&self->root, span, SPAN_ENDED) = Py_NewRef(Py_False);
    *slot_of(&self->root, span, SPAN_LIMITS) = Py_NewRef(self->limits);
    return span;
}

PyDoc_STRVAR(start_doc, "start(view)\n--\n\nGive a request its ids and its context, and decide whether its span is kept.");

static PyObject *
tracer_start(Tracer *self, PyObject *view)
{
    if (know_view(&self->view, view) < 0) {
        return NULL;
    }
    PyObject *fields = read_attribute(&self->view, view, names.view, VIEW_FIELDS);
    if (fields == NULL) {
        return NULL;
    }
    int has_context = PyDict_Check(fields) ? PyDict_Contains(fields, names.traceparent) : 1;
    if (has_context == 0) {
        has_context = PyDict_Contains(fields, names.baggage);
    }
    Py_DECREF(fields);
    if (has_context) {
        return has_context < 0 ? NULL : PyObject_CallOneArg(self->start_otherwise, view);
    }
    int kept;
    PyObject *span = make_root(self, &kept);
    Py_ssize_t count;
    double *slots = span == NULL ? NULL : slots_of(self->slots, &count); /* only now: to make it may have run other code */
    if (slots == NULL) {
        Py_XDECREF(span);
        return NULL;
    }
    slots[kept ? self->root_kept : self->root_left_out] += 1.0;
    self->open += kept;
    PyObject **slot = slot_of(&self->view, view, VIEW_TRACE);
    int result = 0;
    if (slot != NULL) {
        hold(slot, span);
    } else {
        result = PyObject_SetAttr(view, names.view[VIEW_TRACE], span);
    }
    PyObject *context = result < 0 ? NULL : PyObject_GetAttr(view, names.view[VIEW_CONTEXT]);
    result = context == NULL ? -1 : context == Py_None ? 0 : make_current(self, context, span);
    Py_XDECREF(context);
    Py_DECREF(span);
    if (result < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static Py_ssize_t
read_size(Place *place, PyObject *object, PyObject *name)
{
    PyObject *value = read_place(place, object, name);
    if (value == NULL) {
        return -1;
    }
    Py_ssize_t size = PyLong_AsSsize_t(value);
    Py_DECREF(value);
    return size;
}

/* Queue a span that is kept, or refuse it; -1 with an exception set. */
static int
queue_span(Tracer *self, PyObject *view, PyObject *span)
{
    const Py_ssize_t waiting = PyObject_Size(self->waiting);
    const Py_ssize_t room = read_size(&self->room, self->queue, names.room);
    if (waiting < 0 || (room < 0 && PyErr_Occurred())) {
        return -1;
    }
    PyObject *result;
    if (waiting >= room) {
        result = PyObject_CallNoArgs(self->refuse);
    } else {
        PyObject *const parts[] = {view, span};
        PyObject *encoded = PyObject_Vectorcall(self->encode, parts, 2, NULL);
        result = encoded == NULL ? NULL : PyObject_CallOneArg(self->append, encoded);
        Py_XDECREF(encoded);
        if (result != NULL) {
            const Py_ssize_t wake_at = read_size(&self->wake_at, self->queue, names.wake_at);
            if (wake_at < 0 && PyErr_Occurred()) {
                Py_CLEAR(result);
            } else if (waiting + 1 >= wake_at) {
                Py_SETREF(result, PyObject_CallNoArgs(self->wake));
            }
        }
    }
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

PyDoc_STRVAR(end_doc, "end(view)\n--\n\nQueue the span of an exchange, if it is kept.");

static PyObject *
tracer_end(Tracer *self, PyObject *view)
{
    if (know_view(&self->view, view) < 0) {
        return NULL;
    }
    PyObject *span = read_attribute(&self->view, view, names.view, VIEW_TRACE);
    if (span == NULL) {
        return NULL;
    }
    PyObject *type = (PyObject *)Py_TYPE(span);
    const Layout *layout = type == self->root_type ? &self->root : type == self->child_type ? &self->child : NULL;
    int result = 0;
    if (layout != NULL) {
        PyObject *flags = *slot_of(layout, span, SPAN_FLAGS);
        const long bits = flags == NULL ? 0 : PyLong_AsLong(flags);
        if (bits == -1 && PyErr_Occurred()) {
            result = -1;
        } else if (bits & SAMPLED) {
            self->open--;
            result = queue_span(self, view, span);
            if (result == 0) {
                hold(slot_of(layout, span, SPAN_ENDED), Py_True);
            }
        }
    } else if (span != Py_None) {
        PyObject *ended = PyObject_CallOneArg(self->end_otherwise, view);
        Py_XDECREF(ended);
        result = ended == NULL ? -1 : 0;
    }
    Py_DECREF(span);
    if (result < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static int
tracer_fill(Tracer *self, PyObject *args, PyObject *keywords)
{
    static char *keys[] = {"ids", "fill", "slots", "limits", "variable", "attach", "queue", "waiting", "append", "wake", "refuse",
                           "encode", "start_otherwise", "end_otherwise", "root", "child", "root_kept", "root_left_out", "bound",
                           NULL};
    PyObject *ids, *fill, *slots, *limits, *variable, *attach, *queue, *waiting, *append, *wake, *refuse, *encode,
        *start_otherwise, *end_otherwise, *root, *child, *bound;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "$OOOOOOOOOOOOOOO!O!nnO!", keys, &ids, &fill, &slots, &limits, &variable,
                                     &attach, &queue, &waiting, &append, &wake, &refuse, &encode, &start_otherwise,
                                     &end_otherwise, &PyType_Type, &root, &PyType_Type, &child, &self->root_kept,
                                     &self->root_left_out, &PyLong_Type, &bound)
        || !are_slots(slots)) {
        return -1;
    }
    self->bound = PyLong_AsUnsignedLongLong(bound);
    self->keeps_all = 0;
    if (PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_OverflowError)) {
            return -1;
        }
        PyErr_Clear();
        self->keeps_all = 1; /* 2**64 is above all of them */
    }
    Py_ssize_t count;
    if (slots_of(slots, &count) == NULL || layout_of_span(&self->root, (PyTypeObject *)root) < 0
        || layout_of_span(&self->child, (PyTypeObject *)child) < 0) {
        return -1;
    }
    const int is_below = self->keeps_all && PyObject_RichCompareBool(bound, names.zero, Py_LT);
    int fit = !is_below && PyList_Check(ids) && (variable == Py_None || PyContextVar_CheckExact(variable))
              && self->root_kept >= 0 && self->root_kept < count && self->root_left_out >= 0 && self->root_left_out < count
              && self->child.offsets[SPAN_FLAGS] && self->child.offsets[SPAN_ENDED];
    for (int n = SPAN_TRACE_HEX; fit && n <= SPAN_LIMITS; n++) {
        fit = self->root.offsets[n] != 0;
    }
    if (!fit) {
        PyErr_SetString(PyExc_TypeError, "these are not the pool, the rows and the spans of obsserve.telemetry.tracing");
        return -1;
    }
    hold(&self->ids, ids);
    hold(&self->fill, fill);
    hold(&self->slots, slots);
    hold(&self->limits, limits);
    Py_XSETREF(self->variable, variable == Py_None ? NULL : Py_NewRef(variable));
    hold(&self->attach, attach);
    hold(&self->queue, queue);
    hold(&self->waiting, waiting);
    hold(&self->append, append);
    hold(&self->wake, wake);
    hold(&self->refuse, refuse);
    hold(&self->encode, encode);
    hold(&self->start_otherwise, start_otherwise);
    hold(&self->end_otherwise, end_otherwise);
    hold(&self->root_type, root);
    hold(&self->child_type, child);
    return 0;
}

static int
tracer_traverse(Tracer *self, visitproc visit, void *arg)
{
    VISIT_EACH(self->ids, self->fill, self->slots, self->limits, self->variable, self->attach, self->queue, self->waiting,
               self->append, self->wake, self->refuse, self->encode, self->start_otherwise, self->end_otherwise,
               self->root_type, self->child_type, (PyObject *)self->view.type, (PyObject *)self->root.type,
               (PyObject *)self->child.type, (PyObject *)self->room.type, (PyObject *)self->wake_at.type);
    return 0;
}

static int
tracer_clear(Tracer *self)
{
    let_go(&self->fill);
    let_go(&self->attach);
    let_go(&self->append);
    let_go(&self->wake);
    let_go(&self->refuse);
    let_go(&self->encode);
    let_go(&self->start_otherwise);
    let_go(&self->end_otherwise);
    return 0;
}

static void
tracer_dealloc(Tracer *self)
{
    PyObject_GC_UnTrack(self);
    PyObject **const held[] = {
        &self->ids, &self->fill, &self->slots, &self->limits, &self->variable, &self->attach, &self->queue, &self->waiting,
        &self->append, &self->wake, &self->refuse, &self->encode, &self->start_otherwise, &self->end_otherwise,
        &self->root_type, &self->child_type,
    };
    for (size_t n = 0; n < sizeof(held) / sizeof(held[0]); n++) {
        Py_CLEAR(*held[n]);
    }
    layout_clear(&self->view);
    layout_clear(&self->root);
    layout_clear(&self->child);
    Py_CLEAR(self->room.type);
    Py_CLEAR(self->wake_at.type);
    Py_TYPE(self)->tp_free(self);
}

static PyObject *
tracer_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    PyObject *self = type->tp_alloc(type, 0);
    if (self != NULL && tracer_fill((Tracer *)self, args, keywords) < 0) {
        Py_CLEAR(self);
    }
    return self;
}

static PyMethodDef tracer_methods[] = {
    {"start", (PyCFunction)tracer_start, METH_O, start_doc},
    {"end", (PyCFunction)tracer_end, METH_O, end_doc},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef tracer_members[] = {
    {"open", T_PYSSIZET, offsetof(Tracer, open), READONLY, "How many more kept spans it has begun than ended."},
    {NULL, 0, 0, 0, NULL},
};

PyTypeObject TracerType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "obsserve.speedups._native.Tracer",
    .tp_doc = PyDoc_STR("Begins and ends the spans of exchanges."),
    .tp_basicsize = sizeof(Tracer),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_new = tracer_new,
    .tp_traverse = (traverseproc)tracer_traverse,
    .tp_clear = (inquiry)tracer_clear,
    .tp_dealloc = (destructor)tracer_dealloc,
    .tp_methods = tracer_methods,
    .tp_members = tracer_members,
};
