#include "exchange.h"

static PyMethodDef functions[] = {
    {"request", (PyCFunction)(void (*)(void))request, METH_FASTCALL,
     PyDoc_STR("request(resource, scope, batch)\n--\n\nReturn an ExportTraceServiceRequest of encoded spans.")},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "obsserve.speedups._native",
    .m_doc = PyDoc_STR("What every request pays for, in C; see obsserve/speedups/__init__.py."),
    .m_size = -1,
    .m_methods = functions,
};

/* Which of its twins in Python it fits: to be counted up here and in __init__.py with whatever they tell each other. */
#define REVISION 4

PyMODINIT_FUNC
PyInit__native(void)
{
    if (names_intern() < 0) {
        return NULL;
    }
    PyObject *made = PyModule_Create(&module);
    if (made != NULL && PyModule_AddIntConstant(made, "REVISION", REVISION) < 0) {
        Py_CLEAR(made);
    }
    PyTypeObject *const types[] = {
        &BatchType, &ChainType, &CountsType, &EncoderType, &LinesType, &PrototypeType, &SpansType, &TracerType,
    };
    for (size_t n = 0; made != NULL && n < sizeof(types) / sizeof(types[0]); n++) {
        if (PyModule_AddType(made, types[n]) < 0) {
            Py_CLEAR(made);
        }
    }
    return made;
}
