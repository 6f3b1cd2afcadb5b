/* cascade.c -- see cascade.h. */
#include "cascade.h"

#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "../../base/interrupt.h"
#include "../../base/parallel.h"

/* To the nearest whole number, halves to the even one. */
static int32_t nearest(double x) {
  return (int32_t)lrint(x);
}

static int32_t smaller(int32_t a, int32_t b) {
  return a < b ? a : b;
}
static int32_t larger(int32_t a, int32_t b) {
  return a > b ? a : b;
}

/* ---- levels ---- */

/* The image at a scale, before the windows are counted. */
static CascadeLevel level_at(int32_t height, int32_t width, float scale) {
  return (CascadeLevel){.scale = scale,
                        .width = nearest((float)width / scale),
                        .height = nearest((float)height / scale),
                        .step = scale >= 2 ? 1 : 2};
}

/* OpenCV cuts the rows into stripes for its threads, and what does not fill a last stripe is left out: so here. */
static void count_windows(const Cascade *cascade, const CascadeLevel *first, CascadeLevel *level) {
  int32_t columns = larger(level->width - cascade->width + 1, 0), rows = larger(level->height - cascade->height + 1, 0);
  int32_t stripes = (larger(first->width - cascade->width + 1, 0) + 31) / 32;
  if (stripes == 0) return;
  int32_t stripe = larger((rows / level->step + stripes - 1) / stripes, 1) * level->step;
  level->across = (columns + level->step - 1) / level->step;
  level->down = (smaller(rows, stripe * stripes) + level->step - 1) / level->step;
}

int cascade_levels(const Cascade *cascade, int32_t height, int32_t width, const CascadeSearch *search,
                   CascadeLevel *levels) {
  int count = 0;
  for (double factor = 1; count < CASCADE_LEVELS; factor *= search->scale_factor) {
    float scale =
        (float)factor; /* OpenCV asks with the one whether the image is too small and with the other for the rest */
    int32_t across = nearest(cascade->width * scale), down = nearest(cascade->height * scale);
    if (nearest(cascade->width * factor) > width || nearest(cascade->height * factor) > height) break;
    if (across > search->most || down > search->most) break;
    if (across < search->least || down < search->least) continue;
    levels[count] = level_at(height, width, scale);
    count_windows(cascade, &levels[0], &levels[count]);
    count++;
  }
  return count;
}

/* ---- the image of a level, as sums ---- */

/* With windows two pixels apart the even columns of the sums come first and then the odd ones: so the numbers that
   neighbouring windows take lie side by side at any step. */
static int32_t place_of(int32_t column, int32_t step, int32_t stride) {
  return step == 1 ? column : (column & 1) * (stride / 2) + (column >> 1);
}

int32_t cascade_stride(const CascadeLevel *first) {
  return (first->width + 1 + 15) / 16 * 16;
}

/* The pixel before a place of the smaller image, and the share of the one behind it in 1/256. */
static void find_tap(int32_t from, int32_t to, int32_t i, int32_t *first, int32_t *part) {
  double at = 1 / ((double)to / from) * (i + 0.5) - 0.5, low = floor(at);
  *first = larger(smaller((int32_t)low, from - 2), 0);
  *part = low < 0 ? 0 : (int32_t)low > from - 2 ? 256 : nearest((at - low) * 256);
}

static void find_taps(const CascadeWork *w, const CascadeLevel *level) {
  for (int32_t x = 0; x < level->width; x++) find_tap(w->width, level->width, x, &w->first[x], &w->part[x]);
}

/* Row y of the smaller image, bilinear in whole numbers without loss until the last rounding, as its running sums. */
static void sum_row(const CascadeWork *w, const CascadeLevel *level, int32_t y, uint16_t *blend) {
  int32_t row, below, step = level->step, half = w->stride / 2;
  find_tap(w->height, level->height, y, &row, &below);
  const uint8_t *a = w->gray + (long)row * w->width, *b = a + w->width;
  for (int32_t x = 0; x < w->width; x++) blend[x] = (uint16_t)(a[x] * (256 - below) + b[x] * below);
  uint32_t *sum = w->sum + (y + 1L) * w->stride, *square = w->square + (y + 1L) * w->stride;
  uint32_t total = 0, squares = 0;
  sum[0] = square[0] = 0;
  for (int32_t x = 0; x < level->width; x++) {
    uint32_t part = (uint32_t)w->part[x], first = (uint32_t)w->first[x];
    uint32_t pixel = (blend[first] * (256 - part) + blend[first + 1] * part + 32768) >> 16;
    int32_t place = step == 1 ? x + 1 : ((x + 1) & 1) * half + ((x + 1) >> 1);
    sum[place] = total += pixel;
    square[place] = squares += pixel * pixel;
  }
}

/* Columns first .. end - 1 of the sums, from the top down. Columns that hold nothing are summed too, and not read. */
static void sum_down(uint32_t *sum, int32_t height, int32_t stride, long first, long end) {
  memset(sum + first, 0, (size_t)(end - first) * sizeof *sum);
  for (int32_t y = 0; y < height; y++) {
    const uint32_t *above = sum + (long)y * stride;
    uint32_t *row = sum + (y + 1L) * stride;
    for (long x = first; x < end; x++) row[x] += above[x];
  }
}

enum { SUM_PIECES = 8 };

/* ---- windows ---- */

static CascadePlaced place_node(const CascadeWork *w, const CascadeNode *node) {
  const CascadeFeature *f = &w->cascade->feature[node->feature];
  CascadePlaced p = {.threshold = node->threshold, .way = {node->left, node->right}};
  for (int r = 0; r < f->count; r++) {
    int32_t top = f->rect[r].y * w->stride, bottom = (f->rect[r].y + f->rect[r].height) * w->stride;
    int32_t left = place_of(f->rect[r].x, w->step, w->stride);
    int32_t right = place_of(f->rect[r].x + f->rect[r].width, w->step, w->stride);
    const int32_t corner[4] = {top + left, top + right, bottom + left, bottom + right};
    memcpy(p.corner[r], corner, sizeof corner);
    p.weight[r] = f->rect[r].weight;
  }
  return p;
}

static void place_nodes(CascadeWork *w, int32_t step) {
  if (w->step == step) return;
  w->step = step;
  for (int32_t i = 0; i < w->cascade->nodes; i++) w->placed[i] = place_node(w, &w->cascade->node[i]);
}

/* The sum of the pixels of a rectangle; sums wrap around and their differences do not care. */
static inline uint32_t under(const uint32_t *at, const int32_t *corner) {
  return at[corner[0]] - at[corner[1]] - at[corner[2]] + at[corner[3]];
}

/* What one thread works in, for a row of windows. */
typedef struct Row {
  const uint32_t *at; /* the sums at the upper left corner of the first window */
  int32_t count;
  double *score;
  float *norm;   /* 1 / (standard deviation times area), or 0 where a window has too little contrast to be looked at */
  int32_t *left; /* windows that are still in play */
} Row;

/* The contrast is that of the window without its border. */
static void find_norms(const CascadeWork *w, const Row *row, const uint32_t *square) {
  int32_t right = w->cascade->width - 1, bottom = (w->cascade->height - 1) * w->stride, top = w->stride;
  int32_t in = place_of(1, w->step, w->stride), out = place_of(right, w->step, w->stride);
  const int32_t corner[4] = {top + in, top + out, bottom + in, bottom + out};
  double area = (double)(w->cascade->width - 2) * (w->cascade->height - 2);
  for (int32_t k = 0; k < row->count; k++) {
    double sum = (double)(int32_t)under(row->at + k, corner), squares = (double)under(square + k, corner);
    double spread = area * squares - sum * sum;
    float norm = (float)(1 / sqrt(spread > 0 ? spread : 1));
    row->norm[k] = spread > 0 && area * (double)norm < 0.1 ? norm : 0;
  }
}

static inline float weigh(const CascadePlaced *p, int rect, const uint32_t *at) {
  return p->weight[rect] * (float)(int32_t)under(at, p->corner[rect]);
}

static inline float ask_tree(const CascadeWork *w, const CascadeTree *tree, const uint32_t *at, float norm) {
  int32_t next = 0;
  do {
    const CascadePlaced *p = &w->placed[tree->first_node + next];
    float value = weigh(p, 0, at) + weigh(p, 1, at);
    if (p->weight[2] != 0) value += weigh(p, 2, at);
    next =
        p->way[!(value * norm < p->threshold)]; /* rather than a branch, which would be guessed wrong half the time */
  } while (next > 0);
  return w->cascade->leaf[tree->first_leaf - next];
}

static bool passes(const CascadeWork *w, const CascadeStage *stage, const uint32_t *at, float norm) {
  const CascadeTree *tree = w->cascade->tree + stage->first_tree;
  double score = 0;
  for (int32_t t = 0; t < stage->trees; t++) score += (double)ask_tree(w, &tree[t], at, norm);
  return score >= (double)stage->threshold;
}

static bool passes_from(const CascadeWork *w, int32_t stage, const uint32_t *at, float norm) {
  while (stage < w->cascade->stages && passes(w, &w->cascade->stage[stage], at, norm)) stage++;
  return stage == w->cascade->stages;
}

/* ---- all windows of a row at once, as vectors ---- */

/* What a tree of one node says. */
static void add_stump(const CascadeWork *w, const CascadeTree *tree, const Row *row) {
  const CascadePlaced p = w->placed[tree->first_node];
  const float *leaf = w->cascade->leaf + tree->first_leaf;
  const float below = leaf[-p.way[0]], above = leaf[-p.way[1]];
  const uint32_t *restrict at = row->at;
  const float *restrict norm = row->norm;
  double *restrict score = row->score;
  if (p.weight[2] == 0)
    for (int32_t k = 0; k < row->count; k++) {
      float value = weigh(&p, 0, at + k) + weigh(&p, 1, at + k);
      score[k] += (double)(value * norm[k] < p.threshold ? below : above);
    }
  else
    for (int32_t k = 0; k < row->count; k++) {
      float value = weigh(&p, 0, at + k) + weigh(&p, 1, at + k) + weigh(&p, 2, at + k);
      score[k] += (double)(value * norm[k] < p.threshold ? below : above);
    }
}

static void score_row(const CascadeWork *w, const CascadeStage *stage, const Row *row) {
  const CascadeTree *tree = w->cascade->tree + stage->first_tree;
  memset(row->score, 0, (size_t)row->count * sizeof *row->score);
  for (int32_t t = 0; t < stage->trees; t++) add_stump(w, &tree[t], row);
}

/* Behind a window that the first stage turns down one is left out; one that has too little contrast is only passed by. */
static int32_t first_stage(const CascadeWork *w, const Row *row) {
  const CascadeStage *stage = &w->cascade->stage[0];
  int32_t count = 0;
  if (stage->stumps) score_row(w, stage, row);
  for (int32_t k = 0; k < row->count; k++) {
    if (row->norm[k] == 0) continue;
    if (stage->stumps ? row->score[k] >= (double)stage->threshold : passes(w, stage, row->at + k, row->norm[k]))
      row->left[count++] = k;
    else
      k++;
  }
  return count;
}

enum { WORTH_ALL = 12 }; /* it takes a vector as long for all windows of a row as one by one for this part of them */

/* hit[k] = 1 where window k passes all stages; they are 0 before. */
static void scan_row(const CascadeWork *w, const Row *row, uint8_t *hit) {
  int32_t count = first_stage(w, row), stage = 1;
  for (; stage < w->cascade->stages && count * WORTH_ALL > row->count; stage++) {
    const CascadeStage *s = &w->cascade->stage[stage];
    int32_t stay = 0;
    if (!s->stumps) break;
    score_row(w, s, row);
    for (int32_t i = 0; i < count; i++)
      if (row->score[row->left[i]] >= (double)s->threshold) row->left[stay++] = row->left[i];
    count = stay;
  }
  for (int32_t i = 0; i < count; i++)
    hit[row->left[i]] = (uint8_t)passes_from(w, stage, row->at + row->left[i], row->norm[row->left[i]]);
}

long cascade_own_size(const CascadeLevel *first, int32_t width) {
  long row = 16L * (first->width + 1), blend = 2L * width;
  return ((row > blend ? row : blend) + 127) / 64 * 64;
}

static Row row_in(const CascadeWork *w, const CascadeLevel *level, int32_t y, char *own) {
  int32_t n = level->across;
  double *score = (double *)(void *)own;
  float *norm = (float *)(void *)(score + n);
  return (Row){.at = w->sum + (long)y * level->step * w->stride,
               .count = n,
               .score = score,
               .norm = norm,
               .left = (int32_t *)(void *)(norm + n)};
}

static void sum_level(const CascadeWork *w, const CascadeLevel *level, long own_size, bool shared) {
  find_taps(w, level);
#pragma omp parallel for schedule(static) if (shared)
  for (int32_t y = 0; y < level->height; y++)
    sum_row(w, level, y, (uint16_t *)(void *)(w->own + omp_get_thread_num() * own_size));
#pragma omp parallel for schedule(static) if (shared)
  for (int i = 0; i < 2 * SUM_PIECES; i++)
    sum_down(i % 2 == 0 ? w->sum : w->square, level->height, w->stride, piece_start(w->stride, SUM_PIECES, i / 2),
             piece_start(w->stride, SUM_PIECES, i / 2 + 1));
}

static long collect(const CascadeWork *w, const CascadeLevel *level, CascadeBox *found, long count) {
  int32_t width = nearest(w->cascade->width * level->scale), height = nearest(w->cascade->height * level->scale);
  const uint8_t *hit = w->hit;
  for (int32_t y = 0; y < level->down; y++)
    for (int32_t x = 0; x < level->across; x++) {
      if (!*hit++) continue;
      if (count == CASCADE_FOUND) return -1;
      found[count++] = (CascadeBox){nearest((float)(x * level->step) * level->scale),
                                    nearest((float)(y * level->step) * level->scale), width, height};
    }
  return count;
}

long cascade_scan(CascadeWork *w, const CascadeLevel *level, CascadeBox *found, long count) {
  bool shared = (long)level->width * level->height >= PARALLEL_MIN;
  long own_size = cascade_own_size(level, w->width);
  place_nodes(w, level->step);
  sum_level(w, level, own_size, shared);
  memset(w->hit, 0, (size_t)level->across * (size_t)level->down);
#pragma omp parallel for schedule(dynamic, 4) if (shared)
  for (int32_t y = 0; y < level->down; y++) {
    Row row = row_in(w, level, y, w->own + omp_get_thread_num() * own_size);
    if (interrupted()) continue;
    find_norms(w, &row, w->square + (row.at - w->sum));
    scan_row(w, &row, w->hit + (long)y * level->across);
  }
  return interrupted() ? 0 : collect(w, level, found, count);
}

/* ---- many boxes to one ---- */

static const double ALIKE = 0.2; /* sides may lie apart by this part of the mean side */

static bool alike(const CascadeBox *a, const CascadeBox *b) {
  double most = ALIKE * (smaller(a->width, b->width) + smaller(a->height, b->height)) * 0.5;
  return abs(a->x - b->x) <= most && abs(a->y - b->y) <= most && abs(a->x + a->width - b->x - b->width) <= most &&
         abs(a->y + a->height - b->y - b->height) <= most;
}

/* label[i]: the number of the group of box i, where those that are alike, also over others between, are of one group. Returns
   how many there are. */
static int32_t label_groups(const CascadeBox *found, long count, int32_t *label, int32_t *queue) {
  int32_t groups = 0;
  for (long i = 0; i < count; i++) label[i] = -1;
  for (long i = 0; i < count; i++) {
    if (label[i] >= 0) continue;
    long head = 0, tail = 0;
    label[i] = groups;
    queue[tail++] = (int32_t)i;
    while (head < tail && !interrupted()) {
      const CascadeBox *box = &found[queue[head++]];
      for (long j = i + 1; j < count; j++)
        if (label[j] < 0 && alike(box, &found[j])) {
          label[j] = groups;
          queue[tail++] = (int32_t)j;
        }
    }
    groups++;
  }
  return groups;
}

static void take_means(const CascadeBox *found, long count, const int32_t *label, int32_t groups, CascadeFace *faces) {
  memset(faces, 0, (size_t)groups * sizeof *faces);
  for (long i = 0; i < count; i++) {
    CascadeFace *f = &faces[label[i]];
    f->box.x += found[i].x, f->box.y += found[i].y;
    f->box.width += found[i].width, f->box.height += found[i].height;
    f->neighbours++;
  }
  for (int32_t g = 0; g < groups; g++) {
    CascadeBox *b = &faces[g].box;
    float share = 1 / (float)faces[g].neighbours;
    *b = (CascadeBox){nearest((float)b->x * share), nearest((float)b->y * share), nearest((float)b->width * share),
                      nearest((float)b->height * share)};
  }
}

static bool lies_inside(const CascadeBox *a, const CascadeBox *b) {
  int32_t dx = nearest(b->width * ALIKE), dy = nearest(b->height * ALIKE);
  return a->x >= b->x - dx && a->y >= b->y - dy && a->x + a->width <= b->x + b->width + dx &&
         a->y + a->height <= b->y + b->height + dy;
}

static bool outdone(const CascadeFace *faces, int32_t groups, int32_t which, int32_t least) {
  const CascadeFace *f = &faces[which];
  for (int32_t g = 0; g < groups; g++) {
    int32_t other = faces[g].neighbours;
    if (g == which || other <= least || !lies_inside(&f->box, &faces[g].box)) continue;
    if (other > f->neighbours || f->neighbours < 3) return true;
  }
  return false;
}

static CascadeBox cut(CascadeBox b, int32_t height, int32_t width) {
  int32_t x = larger(b.x, 0), y = larger(b.y, 0);
  return (CascadeBox){x, y, smaller(b.x + b.width, width) - x, smaller(b.y + b.height, height) - y};
}

/* The good ones of 'groups' faces; 'keep' remembers them, since each is judged beside all. */
static long choose(CascadeFace *faces, int32_t groups, int32_t least, int32_t *keep) {
  long count = 0;
  for (int32_t g = 0; g < groups; g++) keep[g] = faces[g].neighbours > least && !outdone(faces, groups, g, least);
  for (int32_t g = 0; g < groups; g++)
    if (keep[g]) faces[count++] = faces[g];
  return count;
}

long cascade_group(const CascadeBox *found, long count, int32_t least, int32_t height, int32_t width, int32_t *label,
                   int32_t *queue, CascadeFace *faces) {
  long chosen = count, whole = 0;
  if (least > 0) {
    int32_t groups = label_groups(found, count, label, queue);
    take_means(found, count, label, groups, faces);
    chosen = choose(faces, groups, least, queue);
  } else
    for (long i = 0; i < count; i++) faces[i] = (CascadeFace){found[i], 1};
  for (long i = 0; i < chosen; i++) {
    faces[i].box = cut(faces[i].box, height, width);
    if (faces[i].box.width > 0 && faces[i].box.height > 0) faces[whole++] = faces[i];
  }
  return whole;
}
