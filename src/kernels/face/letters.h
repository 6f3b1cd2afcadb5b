/*
** letters.h -- an alphabet of strokes: each letter of ASCII is a few lines and quarters of ellipses, so that it can be drawn in
** any size. No lua_State here.
*/
#ifndef FERAL_LETTERS_H
#define FERAL_LETTERS_H

#include "canvas.h"

enum { LETTER_PIECES = 96 };

/* A straight piece of a stroke. Dots are pieces of no length. */
typedef struct LetterPiece {
  Point from, to;
  float half; /* width */
} LetterPiece;

/* The pieces of a letter whose left edge and baseline are at 'at', its capital height 'size' pixels; returns how many. What is
   not printable ASCII is a question mark. */
int letters_pieces(char letter, Point at, float size, LetterPiece pieces[LETTER_PIECES]);

/* From this letter's left edge to that of the next, and how much of it lies between the two. */
float letters_advance(char letter, float size);
float letters_gap(float size);

/* Half the width of a stroke at a size, and how far letters reach below the baseline. */
float letters_half(float size);
float letters_depth(float size);

#endif
