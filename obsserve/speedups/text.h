/* Putting text and numbers where there is room for them. Each function returns the place behind what it has put. */

#ifndef OBSSERVE_TEXT_H
#define OBSSERVE_TEXT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

static inline int
is_ascii(PyObject *object)
{
    return object != NULL && PyUnicode_CheckExact(object) && PyUnicode_IS_COMPACT_ASCII(object);
}

static inline char *
put(char *at, const char *from, Py_ssize_t size)
{
    memcpy(at, from, size);
    return at + size;
}

static inline char *
put_ascii(char *at, PyObject *text)
{
    return put(at, PyUnicode_DATA(text), PyUnicode_GET_LENGTH(text));
}

static inline char *
put_bytes(char *at, PyObject *bytes)
{
    return put(at, PyBytes_AS_STRING(bytes), PyBytes_GET_SIZE(bytes));
}

static inline char *
put_six_digits(char *at, unsigned number)
{
    for (int n = 5; n >= 0; n--) {
        at[n] = (char)('0' + number % 10);
        number /= 10;
    }
    return at + 6;
}

static inline char *
put_number(char *at, unsigned long long number)
{
    char digits[20];
    int n = 20;
    do {
        digits[--n] = (char)('0' + number % 10);
        number /= 10;
    } while (number);
    return put(at, digits + n, 20 - n);
}

static inline char *
put_little(char *at, unsigned long long number)
{
    for (int n = 0; n < 8; n++) {
        *at++ = (char)(number >> 8 * n);
    }
    return at;
}

static inline char *
put_double(char *at, double number)
{
    unsigned long long bits;
    memcpy(&bits, &number, sizeof(bits));
    return put_little(at, bits);
}

static inline char *
put_varint(char *at, unsigned long long number)
{
    while (number >= 0x80) {
        *at++ = (char)((number & 0x7f) | 0x80);
        number >>= 7;
    }
    *at++ = (char)number;
    return at;
}

#endif
