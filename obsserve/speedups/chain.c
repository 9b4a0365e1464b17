/* The observers of one hook, called in their order. `telemetry/hooks.py` does the same without this. */

#include "exchange.h"

typedef struct {
    PyObject_HEAD
    vectorcallfunc call;
    PyObject *calls;  /* tuple */
    PyObject *failed; /* takes the number of the call that raised, and the exception */
} Chain;

/* Take the exception that is set, with its traceback. */
static PyObject *
take_exception(void)
{
#if PY_VERSION_HEX >= 0x030c0000
    return PyErr_GetRaisedException();
#else
    PyObject *type, *fault, *traceback;
    PyErr_Fetch(&type, &fault, &traceback);
    PyErr_NormalizeException(&type, &fault, &traceback);
    if (traceback != NULL) {
        PyException_SetTraceback(fault, traceback);
    }
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    return fault;
#endif
}

static PyObject *
chain_call(Chain *self, PyObject *const *args, size_t count, PyObject *keywords)
{
    if (PyVectorcall_NARGS(count) != 1 || (keywords != NULL && PyTuple_GET_SIZE(keywords) != 0)) {
        PyErr_SetString(PyExc_TypeError, "a hook takes what is observed");
        return NULL;
    }
    /* An observer may have the hook compiled again, which lets go of this one. */
    PyObject *calls = Py_NewRef(self->calls), *failed = Py_NewRef(self->failed);
    for (Py_ssize_t n = 0; n < PyTuple_GET_SIZE(calls); n++) {
        PyObject *result = PyObject_CallOneArg(PyTuple_GET_ITEM(calls, n), args[0]);
        if (result == NULL && PyErr_ExceptionMatches(PyExc_Exception)) {
            PyObject *fault = take_exception();
            result = PyObject_CallFunction(failed, "nO", n, fault);
            Py_DECREF(fault);
        }
        if (result == NULL) {
            Py_DECREF(calls);
            Py_DECREF(failed);
            return NULL;
        }
        Py_DECREF(result);
    }
    Py_DECREF(calls);
    Py_DECREF(failed);
    Py_RETURN_NONE;
}

static PyObject *
chain_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static char *keys[] = {"calls", "failed", NULL};
    PyObject *calls, *failed;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "$O!O", keys, &PyTuple_Type, &calls, &failed)) {
        return NULL;
    }
    Chain *self = (Chain *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->call = (vectorcallfunc)chain_call;
        self->calls = Py_NewRef(calls);
        self->failed = Py_NewRef(failed);
    }
    return (PyObject *)self;
}

static int
chain_traverse(Chain *self, visitproc visit, void *arg)
{
    Py_VISIT(self->calls);
    Py_VISIT(self->failed);
    return 0;
}

static int
chain_clear(Chain *self)
{
    let_go(&self->failed);
    return 0;
}

static void
chain_dealloc(Chain *self)
{
    PyObject_GC_UnTrack(self);
    Py_CLEAR(self->calls);
    Py_CLEAR(self->failed);
    Py_TYPE(self)->tp_free(self);
}

PyTypeObject ChainType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "obsserve.speedups._native.Chain",
    .tp_doc = PyDoc_STR("Calls the observers of a hook; one that raises does not silence the next."),
    .tp_basicsize = sizeof(Chain),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL,
    .tp_vectorcall_offset = offsetof(Chain, call),
    .tp_call = PyVectorcall_Call,
    .tp_new = chain_new,
    .tp_traverse = (traverseproc)chain_traverse,
    .tp_clear = (inquiry)chain_clear,
    .tp_dealloc = (destructor)chain_dealloc,
};
