/* numbers.h -- numbers as files hold them, little-endian: of other sizes than ours, and halves of both kinds. */
#ifndef FERAL_NUMBERS_H
#define FERAL_NUMBERS_H

#include <stddef.h>
#include <stdint.h>

/* 'f' (IEEE: 2, 4, 8 bytes), 'b' (bfloat16: the upper half of a float), 'i' or 'u', and the bytes of one number. */
typedef struct NumberFormat {
  char kind;
  size_t size;
} NumberFormat;

/* Whole numbers of more than 53 bits lose their last ones. */
double number_read(const char *from, NumberFormat format);

/* IEEE halves (binary16): 1 bit of sign, 5 of exponent, 10 of fraction. Out of a double they are rounded once, to the
   nearest, of two as near to the even one; beyond 65,504 they are infinite. */
double half_read(uint16_t half);
uint16_t half_from(double value);

#endif
