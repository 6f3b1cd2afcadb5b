/*
** marks.h -- marks on coloured pictures of bytes, with soft edges: frames, panels, lines, dots and text. Places are in pixels from
** the upper left corner of the picture, whose first pixel has its centre at 0.5, 0.5. What lies outside is left out. No
** lua_State here.
*/
#ifndef FERAL_MARKS_H
#define FERAL_MARKS_H

#include <stdint.h>

#include "canvas.h"

/* Bytes at pixel[channel * stride[0] + row * stride[1] + column * stride[2]], three channels. */
typedef struct Sheet {
  uint8_t *pixel;
  long height, width, stride[3];
} Sheet;

typedef struct Dye {
  float color[3]; /* 0 to 255 */
  float opacity;
} Dye;

typedef struct MarkBox {
  float x, y, width, height, radius; /* of its corners */
} MarkBox;

/* A line of a width in pixels along the edge of a box, and all of the box. */
void marks_frame(const Sheet *sheet, const MarkBox *box, float width, Dye dye);
void marks_panel(const Sheet *sheet, const MarkBox *box, Dye dye);

/* Lines between points one by one, once over each pixel; a single point is a dot. */
void marks_line(const Sheet *sheet, const Point *at, int count, bool closed, float width, Dye dye);

/* Letters of a capital height in pixels, from the left edge of the first on a baseline. */
void marks_text(const Sheet *sheet, Point at, float size, const char *text, Dye dye);
float marks_text_width(const char *text, float size);

#endif
