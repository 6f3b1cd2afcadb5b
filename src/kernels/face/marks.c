/* marks.c -- see marks.h. Rows are worked on in chunks: signed distances first, then the dye where they are below half a pixel. */
#include "marks.h"

#include <math.h>
#include <stddef.h>

#include "letters.h"

enum { CHUNK = 64 };

/* The nearest whole number in 0..most, also for what is none. */
static long hold(float x, long most) {
  return (long)fminf(fmaxf(x, 0), (float)most);
}

static void dye_row(const Sheet *sheet, long row, long column, int n, const float *distance, const Dye *dye) {
  uint8_t *pixel = sheet->pixel + row * sheet->stride[1] + column * sheet->stride[2];
  for (int i = 0; i < n; i++, pixel += sheet->stride[2]) {
    float share = dye->opacity * clamp01(0.5f - distance[i]);
    if (share <= 0) continue;
    for (int c = 0; c < 3; c++) {
      uint8_t *byte = pixel + c * sheet->stride[0];
      *byte = (uint8_t)((float)*byte + share * (dye->color[c] - (float)*byte) + 0.5f);
    }
  }
}

/* ---- boxes ---- */

/* Distances from the edge of a box, negative inside; of a frame from its middle line, less half its width. Without a radius
   corners are sharp on both sides of the line. */
static void box_distances(const MarkBox *box, float half_line, float x, float y, int n, float *distance) {
  float half_width = box->width / 2, half_height = box->height / 2, r = box->radius;
  float middle = box->x + half_width, dy = fabsf(y - box->y - half_height) - half_height + r;
  for (int i = 0; i < n; i++) {
    float dx = fabsf(x + (float)i - middle) - half_width + r;
    float outside_x = fmaxf(dx, 0), outside_y = fmaxf(dy, 0), d = fmaxf(dx, dy);
    if (r > 0) d = sqrtf(outside_x * outside_x + outside_y * outside_y) + fminf(d, 0) - r;
    distance[i] = half_line > 0 ? fabsf(d) - half_line : d;
  }
}

static void dye_span(const Sheet *sheet, const MarkBox *box, float half_line, long row, float left, float right,
                     const Dye *dye) {
  float distance[CHUNK];
  long end = hold(ceilf(right) + 1, sheet->width);
  for (long column = hold(floorf(left), sheet->width); column < end; column += CHUNK) {
    int n = (int)(end - column < CHUNK ? end - column : CHUNK);
    box_distances(box, half_line, (float)column + 0.5f, (float)row + 0.5f, n, distance);
    dye_row(sheet, row, column, n, distance, dye);
  }
}

/* Corners are at most as round as the box is wide or high. */
static MarkBox tidy(const MarkBox *box) {
  MarkBox b = *box;
  b.radius = fmaxf(0, fminf(b.radius, fminf(b.width, b.height) / 2));
  return b;
}

void marks_frame(const Sheet *sheet, const MarkBox *box, float width, Dye dye) {
  MarkBox b = tidy(box);
  float half = width / 2, reach = half + 1, right = b.x + b.width, bottom = b.y + b.height, inner = reach + b.radius;
  long end = hold(ceilf(bottom + reach), sheet->height);
  for (long row = hold(floorf(b.y - reach), sheet->height); row < end; row++) {
    float y = (float)row + 0.5f;
    bool sides_alone = y > b.y + inner && y < bottom - inner && b.width > 2 * reach + 2;
    if (sides_alone) {
      dye_span(sheet, &b, half, row, b.x - reach, b.x + reach - 2, &dye);
      dye_span(sheet, &b, half, row, fmaxf(right - reach, floorf(b.x + reach - 2) + 2), right + reach, &dye);
    } else
      dye_span(sheet, &b, half, row, b.x - reach, right + reach, &dye);
  }
}

void marks_panel(const Sheet *sheet, const MarkBox *box, Dye dye) {
  MarkBox b = tidy(box);
  long end = hold(ceilf(b.y + b.height + 1), sheet->height);
  for (long row = hold(floorf(b.y - 1), sheet->height); row < end; row++)
    dye_span(sheet, &b, 0, row, b.x - 1, b.x + b.width + 1, &dye);
}

/* ---- lines and letters ---- */

typedef struct Extent {
  float left, right, top, bottom;
} Extent;

static void stretch(Extent *e, Point p, float margin) {
  e->left = fminf(e->left, p.x - margin), e->right = fmaxf(e->right, p.x + margin);
  e->top = fminf(e->top, p.y - margin), e->bottom = fmaxf(e->bottom, p.y + margin);
}

/* All pieces at once, so that where they meet nothing is dyed twice. */
static void dye_pieces(const Sheet *sheet, const LetterPiece *pieces, int count, const Dye *dye) {
  Extent e = {1e9f, -1e9f, 1e9f, -1e9f};
  for (int i = 0; i < count; i++) {
    stretch(&e, pieces[i].from, pieces[i].half + 1);
    stretch(&e, pieces[i].to, pieces[i].half + 1);
  }
  long right = hold(ceilf(e.right), sheet->width), bottom = hold(ceilf(e.bottom), sheet->height);
  for (long row = hold(floorf(e.top), sheet->height); row < bottom; row++)
    for (long column = hold(floorf(e.left), sheet->width); column < right; column += CHUNK) {
      float distance[CHUNK];
      int n = (int)(right - column < CHUNK ? right - column : CHUNK);
      for (int i = 0; i < n; i++) distance[i] = 1e9f;
      for (int i = 0; i < count; i++)
        outline_near_piece(pieces[i].from, pieces[i].to, pieces[i].half, pieces[i].half, (float)column + 0.5f,
                           (float)row + 0.5f, n, distance);
      dye_row(sheet, row, column, n, distance, dye);
    }
}

void marks_line(const Sheet *sheet, const Point *at, int count, bool closed, float width, Dye dye) {
  LetterPiece pieces[LETTER_PIECES];
  int used = 0, ends = count == 1 ? 1 : closed ? count : count - 1;
  for (int i = 0; i < ends && used < LETTER_PIECES; i++)
    pieces[used++] = (LetterPiece){at[i], at[(i + 1) % count], width / 2};
  dye_pieces(sheet, pieces, used, &dye);
}

void marks_text(const Sheet *sheet, Point at, float size, const char *text, Dye dye) {
  LetterPiece pieces[LETTER_PIECES];
  for (; *text != 0; text++) {
    dye_pieces(sheet, pieces, letters_pieces(*text, at, size, pieces), &dye);
    at.x += letters_advance(*text, size);
  }
}

float marks_text_width(const char *text, float size) {
  float width = 0;
  if (*text == 0) return 0;
  for (; *text != 0; text++) width += letters_advance(*text, size);
  return width - letters_gap(size); /* behind the last */
}
