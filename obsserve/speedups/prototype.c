/* Objects that begin as another one. The twin is the class's own `__init__` (`http/exchange.py`), which sets the same attributes one
by one. */

#include "exchange.h"

typedef struct {
    Py_ssize_t offset; /* of a slot */
    PyObject *value;   /* that each object begins with; NULL for none */
} Begin;

typedef struct {
    PyObject_HEAD
    vectorcallfunc call;
    PyTypeObject *type;
    Begin *begins;
    Py_ssize_t begin_count;
    Py_ssize_t *given; /* offsets of the slots that the arguments are for */
    Py_ssize_t given_count;
} Prototype;

static PyObject *
prototype_call(Prototype *self, PyObject *const *args, size_t count, PyObject *keywords)
{
    if (PyVectorcall_NARGS(count) != self->given_count || (keywords != NULL && PyTuple_GET_SIZE(keywords) != 0)) {
        PyErr_Format(PyExc_TypeError, "it takes %zd arguments, by their place", self->given_count);
        return NULL;
    }
    /* Not `tp_alloc` alone: CPython 3.11 keeps attributes that are no slots inside of an object only when this made it. */
    PyObject *made = PyBaseObject_Type.tp_new(self->type, names.nothing, NULL);
    if (made == NULL) {
        return NULL;
    }
    for (Py_ssize_t n = 0; n < self->begin_count; n++) {
        *(PyObject **)((char *)made + self->begins[n].offset) = Py_XNewRef(self->begins[n].value);
    }
    for (Py_ssize_t n = 0; n < self->given_count; n++) {
        *(PyObject **)((char *)made + self->given[n]) = Py_NewRef(args[n]);
    }
    return made;
}

/* Return where a class has this slot; -1 with an exception set. */
static Py_ssize_t
offset_of(PyTypeObject *type, PyObject *name)
{
    Py_ssize_t offset = slot_offset(type, name);
    if (offset == 0) {
        PyErr_Format(PyExc_TypeError, "%R is no slot of %s", name, type->tp_name);
        return -1;
    }
    return offset;
}

static int
prototype_fill(Prototype *self, PyObject *args, PyObject *keywords)
{
    static char *keys[] = {"first", "slots", "given", NULL};
    PyObject *first, *slots, *given;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "$OO!O!", keys, &first, &PyTuple_Type, &slots, &PyTuple_Type, &given)) {
        return -1;
    }
    if (Py_TYPE(first)->tp_new != PyBaseObject_Type.tp_new) {
        PyErr_Format(PyExc_TypeError, "%s has a way of its own to be made", Py_TYPE(first)->tp_name);
        return -1;
    }
    self->call = (vectorcallfunc)prototype_call;
    self->type = (PyTypeObject *)Py_NewRef(Py_TYPE(first));
    self->begins = PyMem_Calloc(PyTuple_GET_SIZE(slots) + 1, sizeof(Begin));
    self->given = PyMem_Calloc(PyTuple_GET_SIZE(given) + 1, sizeof(Py_ssize_t));
    if (self->begins == NULL || self->given == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t n = 0; n < PyTuple_GET_SIZE(given); n++) {
        if ((self->given[n] = offset_of(self->type, PyTuple_GET_ITEM(given, n))) < 0) {
            return -1;
        }
        for (Py_ssize_t m = 0; m < n; m++) {
            if (self->given[m] == self->given[n]) {
                PyErr_SetString(PyExc_ValueError, "a slot is given twice");
                return -1;
            }
        }
    }
    self->given_count = PyTuple_GET_SIZE(given);
    for (Py_ssize_t n = 0; n < PyTuple_GET_SIZE(slots); n++) {
        const Py_ssize_t offset = offset_of(self->type, PyTuple_GET_ITEM(slots, n));
        if (offset < 0) {
            return -1;
        }
        int wanted = 1;
        for (Py_ssize_t m = 0; m < self->given_count; m++) {
            wanted = wanted && self->given[m] != offset;
        }
        for (Py_ssize_t m = 0; m < self->begin_count; m++) {
            wanted = wanted && self->begins[m].offset != offset;
        }
        if (wanted) {
            self->begins[self->begin_count++] = (Begin){offset, Py_XNewRef(*(PyObject **)((char *)first + offset))};
        }
    }
    return 0;
}

static PyObject *
prototype_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    PyObject *self = type->tp_alloc(type, 0);
    if (self != NULL && prototype_fill((Prototype *)self, args, keywords) < 0) {
        Py_CLEAR(self);
    }
    return self;
}

static int
prototype_traverse(Prototype *self, visitproc visit, void *arg)
{
    Py_VISIT(self->type);
    for (Py_ssize_t n = 0; n < self->begin_count; n++) {
        Py_VISIT(self->begins[n].value);
    }
    return 0;
}

static void
prototype_dealloc(Prototype *self)
{
    PyObject_GC_UnTrack(self);
    for (Py_ssize_t n = 0; n < self->begin_count; n++) {
        Py_CLEAR(self->begins[n].value);
    }
    PyMem_Free(self->begins);
    PyMem_Free(self->given);
    Py_CLEAR(self->type);
    Py_TYPE(self)->tp_free(self);
}

PyTypeObject PrototypeType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "obsserve.speedups._native.Prototype",
    .tp_doc = PyDoc_STR("Makes objects whose slots begin as those of the first, but for those that are given."),
    .tp_basicsize = sizeof(Prototype),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL,
    .tp_vectorcall_offset = offsetof(Prototype, call),
    .tp_call = PyVectorcall_Call,
    .tp_new = prototype_new,
    .tp_traverse = (traverseproc)prototype_traverse,
    .tp_dealloc = (destructor)prototype_dealloc,
};
