/* What is read of an exchange, and of its span.

An exchange's slots are read where they lie in memory: their offsets are looked up once for a class. Whatever is no slot
is asked for as Python does. */

#ifndef OBSSERVE_EXCHANGE_H
#define OBSSERVE_EXCHANGE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

typedef struct {
    PyTypeObject *type; /* whose offsets these are; held */
    Py_ssize_t *offsets;
} Layout;

enum {
    VIEW_ORDINARY, VIEW_BEGAN, VIEW_HEAD_DONE, VIEW_BODY_DONE, VIEW_APP_STARTED, VIEW_RESPONSE_STARTED, VIEW_FIRST_BYTE,
    VIEW_ENDED, VIEW_METHOD, VIEW_SCHEME, VIEW_HTTP_VERSION, VIEW_PARTS, VIEW_ROUTE, VIEW_STATUS, VIEW_FIELDS,
    VIEW_CONNECTION, VIEW_CONNECTION_REQUEST, VIEW_FORWARDED_SCHEME, VIEW_FORWARDED_CLIENT, VIEW_FORWARDED_TRUSTED,
    VIEW_REQUEST_BODY_SIZE, VIEW_RESPONSE_BODY_SIZE, VIEW_REQUEST_SIZE, VIEW_RESPONSE_SIZE, VIEW_REQUEST_ID, VIEW_TRACE,
    VIEW_CONTEXT,
    VIEW_NAMES
};

enum {
    SPAN_TRACE_HEX, SPAN_SPAN_HEX, SPAN_FLAGS, SPAN_EXTRAS, SPAN_ENDED, SPAN_LIMITS, SPAN_PARENT_HEX,
    SPAN_NAMES
};

/* Names that are looked up, interned. */
typedef struct {
    PyObject *view[VIEW_NAMES], *span[SPAN_NAMES];
    PyObject *offset, *due, *heartbeat, *serial, *log_fragment, *max_between, *room, *wake_at, *run;
    PyObject *own_request_id; /* an exchange keeps its id behind a property, which makes one when there is none yet */
    PyObject *zero, *nothing; /* 0 and () */
    PyObject *host, *user_agent, *traceparent, *baggage; /* header fields */
} Names;

extern Names names;

/* Intern the names; -1 with an exception set. */
int names_intern(void);

/* Learn where a class has the attributes of a view, or of a span; -1 with an exception set. */
int layout_of_view(Layout *layout, PyTypeObject *type);
int layout_of_span(Layout *layout, PyTypeObject *type);
void layout_clear(Layout *layout);

/* Return the place of a slot; NULL where the attribute has to be asked for. Code of others may run between two reads, and
have the layout learned of another class: so each of them looks. */
static inline PyObject **
slot_of(const Layout *layout, PyObject *object, int name)
{
    const Py_ssize_t offset = Py_TYPE(object) == layout->type ? layout->offsets[name] : 0;
    return offset ? (PyObject **)((char *)object + offset) : NULL;
}

/* Return a new reference to an attribute. */
static inline PyObject *
read_attribute(const Layout *layout, PyObject *object, PyObject *const *keys, int name)
{
    PyObject **slot = slot_of(layout, object, name);
    return slot != NULL && *slot != NULL ? Py_NewRef(*slot) : PyObject_GetAttr(object, keys[name]);
}

#define MOST_KEPT 8

typedef struct {
    const unsigned char *names; /* of the attributes that were read, and how many they are */
    int count;
    PyObject *values[VIEW_NAMES]; /* by name; only those that were read */
    double began, head_done, body_done, app_started, response_started, first_byte, ended;
    /* What was found for it: held until it is released, whatever becomes of the dict that it was found in. */
    PyObject *kept[MOST_KEPT];
    int kept_count;
} Exchange;

/* Keep a new reference, NULL for none, and return it borrowed. */
static inline PyObject *
keep(Exchange *exchange, PyObject *found)
{
    assert(exchange->kept_count < MOST_KEPT);
    exchange->kept[exchange->kept_count++] = found;
    return found;
}

/* Learn the class of an exchange; -1 with an exception set. */
static inline int
know_view(Layout *layout, PyObject *view)
{
    return Py_TYPE(view) == layout->type ? 0 : layout_of_view(layout, Py_TYPE(view));
}

/* Return whether an exchange is ordinary, and learn its class; -1 with an exception set. */
int is_ordinary(Layout *layout, PyObject *view);

/* Read the attributes of these numbers, up to VIEW_NAMES, those of times also as numbers; -1 with an exception set. The
exchange is to be released in any case. */
int exchange_read(Exchange *exchange, const Layout *layout, PyObject *view, const unsigned char *wanted);
void exchange_release(Exchange *exchange);

/* Return the value of a header field, None where there is none, kept; NULL with an exception set. */
PyObject *header(Exchange *exchange, PyObject *name);

/* --- Single attributes ---*/

/* Return where instances of a class have a slot of this name; 0 when it is none, -1 with an exception set. */
Py_ssize_t slot_offset(PyTypeObject *type, PyObject *name);

/* Where the objects of one class keep an attribute: its slot, or 0. */
typedef struct {
    PyTypeObject *type; /* held */
    Py_ssize_t offset;
} Place;

/* Return a new reference to an attribute of an object whose class is nearly always the same. */
PyObject *read_place(Place *place, PyObject *object, PyObject *name);
/* Read such a number; -1 with an exception set. */
int read_double(Place *place, PyObject *object, PyObject *name, double *number);

/* --- Fragments ---*/

#define REMEMBERED_BITS 6
#define REMEMBERED (1 << REMEMBERED_BITS)

/* What look-ups in a dict have found, of late: then no tuple has to be made and hashed. The dict holds what follows from
the key alone, so that what is remembered stays right when the dict is emptied. */
typedef struct {
    struct {
        PyObject *key, *value; /* held */
    } entries[REMEMBERED];
} Memory;

/* Return the item of a dict under a key of these parts, kept; NULL where there is none, or with an exception set. */
PyObject *look_up(Exchange *exchange, Memory *memory, PyObject *dict, PyObject *const *parts, Py_ssize_t count);
int memory_visit(const Memory *memory, visitproc visit, void *arg);
void memory_clear(Memory *memory);

/* Return the numbers of a memoryview('d') and how many they are; NULL with an exception set when it was released. */
static inline double *
slots_of(PyObject *view, Py_ssize_t *count)
{
    const PyMemoryViewObject *memory = (PyMemoryViewObject *)view;
    if (memory->flags & _Py_MEMORYVIEW_RELEASED || memory->mbuf->flags & _Py_MANAGED_BUFFER_RELEASED) {
        PyErr_SetString(PyExc_ValueError, "the region is closed");
        return NULL;
    }
    const Py_buffer *buffer = PyMemoryView_GET_BUFFER(view);
    *count = buffer->len / (Py_ssize_t)sizeof(double);
    return buffer->buf;
}

/* Return whether an object is a memoryview of numbers that can be written; else with an exception set. */
int are_slots(PyObject *object);

/* The loop's lag, and what of it is read. */
typedef struct {
    PyObject *object;
    Place due, heartbeat;
} Lag;

/* Return whether the loop lagged while the exchange was open; -1 with an exception set. */
int has_lagged(Lag *lag, const Exchange *exchange);

#define VISIT_EACH(...)                                                  \
    do {                                                                 \
        PyObject *const held[] = {__VA_ARGS__};                          \
        for (size_t n = 0; n < sizeof(held) / sizeof(held[0]); n++) {    \
            Py_VISIT(held[n]);                                           \
        }                                                                \
    } while (0)

/* Forget an exception that somebody else will meet again, and tell of; -1 when it is none to be forgotten. */
static inline int
forget_exception(void)
{
    if (PyErr_Occurred() && !PyErr_ExceptionMatches(PyExc_Exception)) {
        return -1; /* an interrupt, or the end of the interpreter */
    }
    PyErr_Clear();
    return 0;
}

/* Take a reference into a place that may have held another. */
static inline void
hold(PyObject **place, PyObject *object)
{
    Py_XSETREF(*place, Py_NewRef(object));
}

/* Break a cycle: what was to be called is called no more, and a call that is too late raises. */
static inline void
let_go(PyObject **callable)
{
    if (*callable != NULL) {
        hold(callable, Py_None);
    }
}

/* Return an ExportTraceServiceRequest: request(resource, scope, batch). */
PyObject *request(PyObject *module, PyObject *const *args, Py_ssize_t count);

extern PyTypeObject BatchType, ChainType, CountsType, EncoderType, LinesType, PrototypeType, SpansType, TracerType;

#endif
