/* Counting of ordinary exchanges. `metrics.py` says what is counted where, and counts the others. */

#include "exchange.h"

#include <math.h>

#define MOST_BUCKETS 64
#define ROW_SLOTS 64 /* STRIDE of cells.py: what a row has */

/* Where a row has what, in the order in which cells.py tells it. */
enum { DURATION_SUM, FIRST_BYTE_SUM, QUEUE_SUM, REQUEST_BYTES, RESPONSE_BYTES, DURATION, FIRST_BYTE, QUEUE, PLACES };

typedef struct {
    double bounds[MOST_BUCKETS];
    Py_ssize_t count;
} Buckets;

typedef struct {
    PyObject_HEAD
    PyObject *slots;         /* memoryview('d') */
    PyObject *rows, *begun;  /* rows and slots, by what tells ordinary exchanges apart */
    PyObject *due, *note;    /* when an exemplar is due, and what notes it; NULL without exemplars */
    PyObject *start_otherwise, *end_otherwise;
    Py_ssize_t reused;
    int sampled_only;
    Py_ssize_t places[PLACES];
    Buckets latency, queue;
    Layout view, span;
    Memory known_rows, known_begun;
} Counts;

static const unsigned char start_wants[] = {VIEW_METHOD, VIEW_SCHEME, VIEW_CONNECTION_REQUEST, VIEW_NAMES};
static const unsigned char end_wants[] = {
    VIEW_METHOD, VIEW_SCHEME, VIEW_STATUS, VIEW_ROUTE, VIEW_BEGAN, VIEW_ENDED, VIEW_HEAD_DONE, VIEW_APP_STARTED,
    VIEW_FIRST_BYTE, VIEW_REQUEST_BODY_SIZE, VIEW_RESPONSE_BODY_SIZE, VIEW_TRACE, VIEW_NAMES,
};

/* Return the bucket of a value: the first whose bound is not below it. */
static inline Py_ssize_t
bucket_of(const Buckets *buckets, double value)
{
    Py_ssize_t n = 0;
    while (n < buckets->count && buckets->bounds[n] < value) {
        n++;
    }
    return n;
}

static int
buckets_take(Buckets *buckets, PyObject *bounds)
{
    buckets->count = PyTuple_GET_SIZE(bounds);
    if (buckets->count < 1 || buckets->count > MOST_BUCKETS) {
        PyErr_SetString(PyExc_ValueError, "a histogram has 1 to 64 bounds");
        return -1;
    }
    for (Py_ssize_t n = 0; n < buckets->count; n++) {
        buckets->bounds[n] = PyFloat_AsDouble(PyTuple_GET_ITEM(bounds, n));
    }
    return PyErr_Occurred() ? -1 : 0;
}

/* Return whether a request was counted; -1 with an exception set. */
static int
count_start(Counts *self, PyObject *view)
{
    if (know_view(&self->view, view) < 0) {
        return -1;
    }
    Exchange exchange;
    int counted = -1;
    if (exchange_read(&exchange, &self->view, view, start_wants) == 0) {
        PyObject *slot = look_up(&exchange, &self->known_begun, self->begun, &exchange.values[VIEW_METHOD], 2); /* and scheme */
        PyObject *number = exchange.values[VIEW_CONNECTION_REQUEST];
        if (slot == NULL || !PyLong_CheckExact(slot) || !PyLong_CheckExact(number)) {
            counted = PyErr_Occurred() ? -1 : 0;
        } else {
            int overflow;
            const int reused = PyLong_AsLongAndOverflow(number, &overflow) == 2;
            Py_ssize_t count, at = PyLong_AsSsize_t(slot);
            double *slots = PyErr_Occurred() ? NULL : slots_of(self->slots, &count);
            if (slots != NULL) {
                counted = at >= 0 && at < count && self->reused < count;
                if (counted) {
                    slots[at] += 1.0;
                    slots[self->reused] += reused;
                }
            }
        }
    }
    exchange_release(&exchange);
    return counted;
}

/* Return whether an exemplar is due for this bucket; -1 with an exception set. */
static int
exemplar_due(Counts *self, const Exchange *exchange, Py_ssize_t slot)
{
    PyObject *trace = exchange->values[VIEW_TRACE];
    if (self->note == NULL || trace == Py_None) {
        return 0;
    }
    if (self->sampled_only) {
        if (Py_TYPE(trace) != self->span.type && layout_of_span(&self->span, Py_TYPE(trace)) < 0) {
            return -1;
        }
        PyObject **flags = slot_of(&self->span, trace, SPAN_FLAGS);
        if (flags != NULL && *flags != NULL && PyLong_CheckExact(*flags)) {
            int overflow;
            if (!(PyLong_AsLongAndOverflow(*flags, &overflow) & 1) && !overflow) {
                return 0;
            }
        }
    }
    PyObject *key = PyLong_FromSsize_t(slot);
    if (key == NULL) {
        return -1;
    }
    PyObject *time = PyDict_GetItemWithError(self->due, key);
    Py_DECREF(key);
    if (time == NULL) {
        return PyErr_Occurred() ? -1 : 1;
    }
    const double due = PyFloat_AsDouble(time);
    return due == -1.0 && PyErr_Occurred() ? -1 : exchange->ended >= due;
}

/* Return whether an exchange was counted; -1 with an exception set. */
static int
count_end(Counts *self, PyObject *view)
{
    int ordinary = is_ordinary(&self->view, view);
    if (ordinary <= 0) {
        return ordinary;
    }
    Exchange exchange;
    int counted = -1;
    if (exchange_read(&exchange, &self->view, view, end_wants) < 0) {
        goto done;
    }
    PyObject *const *values = exchange.values;
    PyObject *const key[] = {values[VIEW_METHOD], values[VIEW_SCHEME], values[VIEW_STATUS], values[VIEW_ROUTE]};
    PyObject *found = look_up(&exchange, &self->known_rows, self->rows, key, 4);
    if (found == NULL || !PyLong_CheckExact(found) || !PyLong_CheckExact(values[VIEW_REQUEST_BODY_SIZE])
        || !PyLong_CheckExact(values[VIEW_RESPONSE_BODY_SIZE])) {
        counted = PyErr_Occurred() ? -1 : 0;
        goto done;
    }
    Py_ssize_t count, row = PyLong_AsSsize_t(found);
    double received = PyLong_AsDouble(values[VIEW_REQUEST_BODY_SIZE]), sent = PyLong_AsDouble(values[VIEW_RESPONSE_BODY_SIZE]);
    double *slots = PyErr_Occurred() ? NULL : slots_of(self->slots, &count);
    if (slots == NULL) {
        goto done;
    }
    if (row < 0 || row > count - ROW_SLOTS || exchange.first_byte == 0.0 || exchange.app_started == 0.0) {
        counted = 0;
        goto done;
    }
    const Py_ssize_t *places = self->places;
    const double duration = exchange.ended - exchange.began;
    const double waited = exchange.first_byte - exchange.head_done;
    const double queued = exchange.app_started - exchange.head_done;
    const Py_ssize_t bucket = bucket_of(&self->latency, duration);
    slots += row;
    slots[places[DURATION_SUM]] += duration;
    slots[places[FIRST_BYTE_SUM]] += waited;
    slots[places[QUEUE_SUM]] += queued;
    if (queued <= self->queue.bounds[0] && waited > (bucket ? self->latency.bounds[bucket - 1] : -INFINITY)) {
        slots[bucket] += 1.0;
    } else {
        slots[places[FIRST_BYTE] + bucket_of(&self->latency, waited)] += 1.0;
        slots[places[QUEUE] + bucket_of(&self->queue, queued)] += 1.0;
        slots[places[DURATION] + bucket] += 1.0;
    }
    slots[places[RESPONSE_BYTES]] += sent;
    slots[places[REQUEST_BYTES]] += received;
    counted = 1;
    int due = exemplar_due(self, &exchange, row + places[DURATION] + bucket);
    if (due > 0) {
        PyObject *noted = PyObject_CallFunction(self->note, "Onn", view, row, bucket);
        due = noted == NULL ? -1 : 0;
        Py_XDECREF(noted);
    }
    if (due < 0) {
        counted = -1;
    }
done:
    exchange_release(&exchange);
    return counted;
}

PyDoc_STRVAR(started_doc, "started(view)\n--\n\nCount a request that has begun.");

static PyObject *
counts_started(Counts *self, PyObject *view)
{
    int counted = count_start(self, view);
    if (counted < 0) {
        return NULL;
    }
    return counted ? Py_NewRef(Py_None) : PyObject_CallOneArg(self->start_otherwise, view);
}

PyDoc_STRVAR(ended_doc, "ended(view)\n--\n\nCount a request that has ended, with its times and sizes.");

static PyObject *
counts_ended(Counts *self, PyObject *view)
{
    int counted = count_end(self, view);
    if (counted < 0) {
        return NULL;
    }
    return counted ? Py_NewRef(Py_None) : PyObject_CallOneArg(self->end_otherwise, view);
}

static int
counts_fill(Counts *self, PyObject *args, PyObject *keywords)
{
    static char *keys[] = {"slots", "rows", "begun", "reused", "places", "latency", "queue", "due", "note", "sampled_only",
                           "start_otherwise", "end_otherwise", NULL};
    PyObject *slots, *rows, *begun, *places, *latency, *queue, *due, *note, *start_otherwise, *end_otherwise;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "$OO!O!nO!O!O!O!OpOO", keys, &slots, &PyDict_Type, &rows, &PyDict_Type,
                                     &begun, &self->reused, &PyTuple_Type, &places, &PyTuple_Type, &latency, &PyTuple_Type,
                                     &queue, &PyDict_Type, &due, &note, &self->sampled_only, &start_otherwise,
                                     &end_otherwise)
        || !are_slots(slots) || buckets_take(&self->latency, latency) < 0 || buckets_take(&self->queue, queue) < 0) {
        return -1;
    }
    int fit = PyTuple_GET_SIZE(places) == PLACES && self->reused >= 0;
    for (int n = 0; fit && n < PLACES; n++) {
        self->places[n] = PyLong_AsSsize_t(PyTuple_GET_ITEM(places, n));
        Py_ssize_t more = n == DURATION || n == FIRST_BYTE ? self->latency.count : n == QUEUE ? self->queue.count : 0;
        fit = self->places[n] >= 0 && self->places[n] + more < ROW_SLOTS;
    }
    if (!fit || self->latency.count >= self->places[DURATION_SUM]) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_ValueError, "a row has eight places, all within its slots");
        }
        return -1;
    }
    hold(&self->slots, slots);
    hold(&self->rows, rows);
    hold(&self->begun, begun);
    hold(&self->due, due);
    Py_XSETREF(self->note, note == Py_None ? NULL : Py_NewRef(note));
    hold(&self->start_otherwise, start_otherwise);
    hold(&self->end_otherwise, end_otherwise);
    return 0;
}

static int
counts_traverse(Counts *self, visitproc visit, void *arg)
{
    VISIT_EACH(self->slots, self->rows, self->begun, self->due, self->note, self->start_otherwise, self->end_otherwise,
               (PyObject *)self->view.type, (PyObject *)self->span.type);
    return memory_visit(&self->known_rows, visit, arg) || memory_visit(&self->known_begun, visit, arg);
}

static int
counts_clear(Counts *self)
{
    let_go(&self->note);
    let_go(&self->start_otherwise);
    let_go(&self->end_otherwise);
    return 0;
}

static void
counts_dealloc(Counts *self)
{
    PyObject_GC_UnTrack(self);
    Py_CLEAR(self->slots);
    Py_CLEAR(self->rows);
    Py_CLEAR(self->begun);
    Py_CLEAR(self->due);
    Py_CLEAR(self->note);
    Py_CLEAR(self->start_otherwise);
    Py_CLEAR(self->end_otherwise);
    layout_clear(&self->view);
    layout_clear(&self->span);
    memory_clear(&self->known_rows);
    memory_clear(&self->known_begun);
    Py_TYPE(self)->tp_free(self);
}

static PyObject *
counts_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    PyObject *self = type->tp_alloc(type, 0);
    if (self != NULL && counts_fill((Counts *)self, args, keywords) < 0) {
        Py_CLEAR(self);
    }
    return self;
}

static PyMethodDef counts_methods[] = {
    {"started", (PyCFunction)counts_started, METH_O, started_doc},
    {"ended", (PyCFunction)counts_ended, METH_O, ended_doc},
    {NULL, NULL, 0, NULL},
};

PyTypeObject CountsType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "obsserve.speedups._native.Counts",
    .tp_doc = PyDoc_STR("Counts exchanges."),
    .tp_basicsize = sizeof(Counts),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_new = counts_new,
    .tp_traverse = (traverseproc)counts_traverse,
    .tp_clear = (inquiry)counts_clear,
    .tp_dealloc = (destructor)counts_dealloc,
    .tp_methods = counts_methods,
};
