#include "exchange.h"

Names names;

static const char *const view_names[VIEW_NAMES] = {
    "ordinary", "began", "head_done", "body_done", "app_started", "response_started", "first_byte",
    "ended", "method", "scheme", "http_version", "parts", "route", "status", "fields",
    "connection", "connection_request", "forwarded_scheme", "forwarded_client", "forwarded_trusted",
    "request_body_size", "response_body_size", "request_size", "response_size", "request_id", "trace",
    "context",
};

static const char *const span_names[SPAN_NAMES] = {
    "trace_hex", "span_hex", "flags", "extras", "ended", "limits", "parent_hex",
};

int
names_intern(void)
{
    for (int n = 0; n < VIEW_NAMES; n++) {
        if ((names.view[n] = PyUnicode_InternFromString(view_names[n])) == NULL) {
            return -1;
        }
    }
    for (int n = 0; n < SPAN_NAMES; n++) {
        if ((names.span[n] = PyUnicode_InternFromString(span_names[n])) == NULL) {
            return -1;
        }
    }
    if ((names.zero = PyLong_FromLong(0)) == NULL || (names.nothing = PyTuple_New(0)) == NULL) {
        return -1;
    }
    const struct {
        PyObject **place;
        const char *text;
    } texts[] = {
        {&names.offset, "offset"}, {&names.due, "due"}, {&names.heartbeat, "heartbeat"}, {&names.serial, "serial"},
        {&names.log_fragment, "log_fragment"}, {&names.max_between, "max_between"}, {&names.room, "room"},
        {&names.wake_at, "wake_at"}, {&names.run, "run"}, {&names.own_request_id, "_request_id"},
    }, fields[] = {
        {&names.host, "host"}, {&names.user_agent, "user-agent"}, {&names.traceparent, "traceparent"},
        {&names.baggage, "baggage"},
    };
    for (size_t n = 0; n < sizeof(texts) / sizeof(texts[0]); n++) {
        if ((*texts[n].place = PyUnicode_InternFromString(texts[n].text)) == NULL) {
            return -1;
        }
    }
    for (size_t n = 0; n < sizeof(fields) / sizeof(fields[0]); n++) {
        if ((*fields[n].place = PyBytes_FromString(fields[n].text)) == NULL) {
            return -1;
        }
    }
    return 0;
}

/* --- Attributes ------------------------------------------------------------------------------*/

Py_ssize_t
slot_offset(PyTypeObject *type, PyObject *name)
{
    PyObject *found = PyObject_GetAttr((PyObject *)type, name);
    Py_ssize_t offset = 0;
    if (found == NULL) {
        return forget_exception();
    }
    if (Py_IS_TYPE(found, &PyMemberDescr_Type) && PyType_IsSubtype(type, PyDescr_TYPE(found))) {
        const PyMemberDef *member = ((PyMemberDescrObject *)found)->d_member;
        if (member->type == T_OBJECT_EX && !(member->flags & READONLY)) {
            offset = member->offset;
        }
    }
    Py_DECREF(found);
    return offset;
}

static int
layout_learn(Layout *layout, PyTypeObject *type, PyObject *const *keys, int count)
{
    /* To look an attribute up may run code that comes back here: the layout is changed only when all is known. */
    Py_ssize_t offsets[VIEW_NAMES];
    for (int n = 0; n < count; n++) {
        if ((offsets[n] = slot_offset(type, keys[n])) < 0) {
            return -1;
        }
    }
    if (layout->offsets == NULL && (layout->offsets = PyMem_Calloc(count, sizeof(Py_ssize_t))) == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    memcpy(layout->offsets, offsets, count * sizeof(Py_ssize_t));
    PyTypeObject *before = layout->type;
    layout->type = (PyTypeObject *)Py_NewRef(type);
    Py_XDECREF(before);
    return 0;
}

int
layout_of_view(Layout *layout, PyTypeObject *type)
{
    const Py_ssize_t own_request_id = slot_offset(type, names.own_request_id);
    if (own_request_id < 0 || layout_learn(layout, type, names.view, VIEW_NAMES) < 0) {
        return -1;
    }
    if (layout->type == type && layout->offsets[VIEW_REQUEST_ID] == 0) {
        layout->offsets[VIEW_REQUEST_ID] = own_request_id;
    }
    return 0;
}

int
layout_of_span(Layout *layout, PyTypeObject *type)
{
    return layout_learn(layout, type, names.span, SPAN_NAMES);
}

void
layout_clear(Layout *layout)
{
    PyTypeObject *type = layout->type;
    layout->type = NULL;
    PyMem_Free(layout->offsets);
    layout->offsets = NULL;
    Py_XDECREF(type);
}

static inline int
as_double(PyObject *value, double *number)
{
    if (PyFloat_CheckExact(value)) {
        *number = PyFloat_AS_DOUBLE(value);
        return 0;
    }
    *number = PyFloat_AsDouble(value);
    return *number == -1.0 && PyErr_Occurred() ? -1 : 0;
}

PyObject *
read_place(Place *place, PyObject *object, PyObject *name)
{
    Py_ssize_t offset = place->offset;
    if (Py_TYPE(object) != place->type) {
        if ((offset = slot_offset(Py_TYPE(object), name)) < 0) {
            return NULL;
        }
        PyTypeObject *before = place->type;
        place->type = (PyTypeObject *)Py_NewRef(Py_TYPE(object));
        place->offset = offset;
        Py_XDECREF(before);
    }
    PyObject *value = offset ? *(PyObject **)((char *)object + offset) : NULL;
    return value != NULL ? Py_NewRef(value) : PyObject_GetAttr(object, name);
}

int
read_double(Place *place, PyObject *object, PyObject *name, double *number)
{
    PyObject *value = read_place(place, object, name);
    if (value == NULL) {
        return -1;
    }
    int result = as_double(value, number);
    Py_DECREF(value);
    return result;
}

/* --- Exchanges -------------------------------------------------------------------------------*/

int
is_ordinary(Layout *layout, PyObject *view)
{
    if (know_view(layout, view) < 0) {
        return -1;
    }
    PyObject *ordinary = read_attribute(layout, view, names.view, VIEW_ORDINARY);
    if (ordinary == NULL) {
        return -1;
    }
    int result = ordinary == Py_True ? 1 : PyObject_IsTrue(ordinary);
    Py_DECREF(ordinary);
    return result;
}

int
exchange_read(Exchange *exchange, const Layout *layout, PyObject *view, const unsigned char *wanted)
{
    exchange->names = wanted;
    exchange->count = exchange->kept_count = 0;
    for (; *wanted != VIEW_NAMES; wanted++) {
        PyObject *value = read_attribute(layout, view, names.view, *wanted);
        if (value == Py_None && *wanted == VIEW_REQUEST_ID) {
            Py_SETREF(value, PyObject_GetAttr(view, names.view[VIEW_REQUEST_ID]));
        }
        if (value == NULL) {
            return -1;
        }
        exchange->values[*wanted] = value;
        exchange->count++;
        double *number;
        switch (*wanted) {
        case VIEW_BEGAN: number = &exchange->began; break;
        case VIEW_HEAD_DONE: number = &exchange->head_done; break;
        case VIEW_BODY_DONE: number = &exchange->body_done; break;
        case VIEW_APP_STARTED: number = &exchange->app_started; break;
        case VIEW_RESPONSE_STARTED: number = &exchange->response_started; break;
        case VIEW_FIRST_BYTE: number = &exchange->first_byte; break;
        case VIEW_ENDED: number = &exchange->ended; break;
        default: continue;
        }
        if (as_double(value, number) < 0) {
            return -1;
        }
    }
    return 0;
}

void
exchange_release(Exchange *exchange)
{
    for (int n = 0; n < exchange->count; n++) {
        Py_DECREF(exchange->values[exchange->names[n]]);
    }
    for (int n = 0; n < exchange->kept_count; n++) {
        Py_XDECREF(exchange->kept[n]);
    }
}

PyObject *
header(Exchange *exchange, PyObject *name)
{
    PyObject *fields = exchange->values[VIEW_FIELDS];
    if (!PyDict_Check(fields)) {
        PyErr_SetString(PyExc_TypeError, "fields must be a dict");
        return NULL;
    }
    PyObject *value = PyDict_GetItemWithError(fields, name);
    if (value == NULL) {
        return PyErr_Occurred() ? NULL : Py_None;
    }
    return keep(exchange, Py_NewRef(value));
}

int
has_lagged(Lag *lag, const Exchange *exchange)
{
    double due, heartbeat;
    if (read_double(&lag->due, lag->object, names.due, &due) == 0
        && read_double(&lag->heartbeat, lag->object, names.heartbeat, &heartbeat) == 0) {
        return !(exchange->began >= heartbeat && exchange->ended <= due);
    }
    if (!PyErr_ExceptionMatches(PyExc_AttributeError)) {
        return -1;
    }
    PyErr_Clear(); /* not the server's own: it has to be asked */
    PyObject *worst = PyObject_CallMethodObjArgs(lag->object, names.max_between, exchange->values[VIEW_BEGAN],
                                                 exchange->values[VIEW_ENDED], NULL);
    if (worst == NULL) {
        return -1;
    }
    int lagged = PyObject_IsTrue(worst);
    Py_DECREF(worst);
    return lagged;
}

/* --- Fragments -------------------------------------------------------------------------------*/

/* Return whether two parts of keys are equal for sure. */
static inline int
is_same(PyObject *one, PyObject *other)
{
    if (one == other) {
        return 1;
    }
    if (PyBytes_CheckExact(one) && PyBytes_CheckExact(other)) {
        const Py_ssize_t size = PyBytes_GET_SIZE(one);
        return size == PyBytes_GET_SIZE(other) && memcmp(PyBytes_AS_STRING(one), PyBytes_AS_STRING(other), size) == 0;
    }
    if (PyLong_CheckExact(one) && PyLong_CheckExact(other)) {
        int overflow, overflow_too;
        const long number = PyLong_AsLongAndOverflow(one, &overflow);
        return number == PyLong_AsLongAndOverflow(other, &overflow_too) && !overflow && !overflow_too;
    }
    return 0;
}

/* Return a number that equal parts have in common, as `is_same` understands it. */
static inline size_t
number_of(PyObject *part)
{
    if (PyBytes_CheckExact(part)) {
        return (size_t)PyBytes_GET_SIZE(part);
    }
    if (PyLong_CheckExact(part)) {
        int overflow;
        return (size_t)PyLong_AsLongAndOverflow(part, &overflow);
    }
    return (size_t)part >> 4;
}

PyObject *
look_up(Exchange *exchange, Memory *memory, PyObject *dict, PyObject *const *parts, Py_ssize_t count)
{
    size_t mixed = 0;
    for (Py_ssize_t n = 0; n < count; n++) {
        mixed = (mixed ^ number_of(parts[n])) * (size_t)0x9e3779b97f4a7c15;
    }
    const size_t place = mixed >> (8 * sizeof(size_t) - REMEMBERED_BITS);
    PyObject *key = memory->entries[place].key;
    if (key != NULL && PyTuple_GET_SIZE(key) == count) {
        Py_ssize_t n = 0;
        while (n < count && is_same(PyTuple_GET_ITEM(key, n), parts[n])) {
            n++;
        }
        if (n == count) {
            return keep(exchange, Py_NewRef(memory->entries[place].value));
        }
    }
    if ((key = PyTuple_New(count)) == NULL) {
        return NULL;
    }
    for (Py_ssize_t n = 0; n < count; n++) {
        PyTuple_SET_ITEM(key, n, Py_NewRef(parts[n]));
    }
    PyObject *found = PyDict_GetItemWithError(dict, key);
    if (found != NULL) {
        keep(exchange, Py_NewRef(found));
        PyObject *key_before = memory->entries[place].key, *value_before = memory->entries[place].value;
        memory->entries[place].key = Py_NewRef(key);
        memory->entries[place].value = Py_NewRef(found);
        Py_XDECREF(key_before);
        Py_XDECREF(value_before);
    }
    Py_DECREF(key);
    return found;
}

int
memory_visit(const Memory *memory, visitproc visit, void *arg)
{
    for (int n = 0; n < REMEMBERED; n++) {
        Py_VISIT(memory->entries[n].key);
        Py_VISIT(memory->entries[n].value);
    }
    return 0;
}

void
memory_clear(Memory *memory)
{
    for (int n = 0; n < REMEMBERED; n++) {
        Py_CLEAR(memory->entries[n].key);
        Py_CLEAR(memory->entries[n].value);
    }
}

int
are_slots(PyObject *object)
{
    if (PyMemoryView_Check(object)) {
        const Py_buffer *buffer = PyMemoryView_GET_BUFFER(object);
        if (!buffer->readonly && buffer->ndim == 1 && buffer->format != NULL && strcmp(buffer->format, "d") == 0
            && PyBuffer_IsContiguous(buffer, 'C')) {
            return 1;
        }
    }
    PyErr_SetString(PyExc_TypeError, "slots must be a writable memoryview('d')");
    return 0;
}
