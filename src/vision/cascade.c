/* cascade.c -- cascades of Haar-like features for Lua: made of flat lists of numbers, and asked where in an image faces are. */
#include <string.h>

#include "../base/alloc.h"
#include "../base/interrupt.h"
#include "../base/parallel.h"
#include "../kernels/face/cascade.h"
#include "../tensor/images.h"

#define CASCADE_TYPE "feral.cascade"

/* ---- making ---- */

enum { WINDOW_LEAST = 4, WINDOW_MOST = 1024, NUMBERS_MOST = 1 << 24, SIDE_MOST = 32767 };

/* A list of numbers at 'arg', 'per' for each of what is counted. */
static int32_t check_list(lua_State *L, int arg, const char *name, int per) {
  luaL_checktype(L, arg, LUA_TTABLE);
  lua_Integer length = luaL_len(L, arg);
  if (length < per || length > NUMBERS_MOST || length % per != 0)
    tensor_error(L, "cascade: %s are lists of %d numbers, got %I in all", name, per, length);
  return (int32_t)(length / per);
}

/* Number 'i' of the list at 'arg', which must lie in least .. most. */
static int32_t whole_at(lua_State *L, int arg, lua_Integer i, const char *name, lua_Integer least, lua_Integer most) {
  int is_whole;
  lua_geti(L, arg, i);
  lua_Integer value = lua_tointegerx(L, -1, &is_whole);
  if (!is_whole) tensor_error(L, "cascade: %s must be a whole number, got %s", name, luaL_tolstring(L, -1, NULL));
  if (value < least || value > most)
    tensor_error(L, "cascade: %s must lie between %I and %I, got %I", name, least, most, value);
  lua_pop(L, 1);
  return (int32_t)value;
}

static float real_at(lua_State *L, int arg, lua_Integer i) {
  int is_number;
  lua_geti(L, arg, i);
  lua_Number value = lua_tonumberx(L, -1, &is_number);
  if (!is_number) tensor_error(L, "cascade: number expected, got %s", luaL_typename(L, -1));
  lua_pop(L, 1);
  return (float)value;
}

enum { ARG_STAGES = 3, ARG_TREES, ARG_NODES, ARG_LEAVES, ARG_FEATURES, ARG_RECTS };

static void fill_features(lua_State *L, Cascade *c, int32_t rects) {
  int32_t rect = 0;
  for (int32_t i = 0; i < c->features; i++) {
    CascadeFeature *f = &c->feature[i];
    memset(f, 0, sizeof *f);
    f->count = whole_at(L, ARG_FEATURES, i + 1, "rectangles", 1, CASCADE_RECTS);
    if (f->count > rects - rect) tensor_error(L, "cascade: feature %d lacks rectangles", (int)i + 1);
    for (int32_t r = 0; r < f->count; r++, rect++) {
      lua_Integer at = 5 * (lua_Integer)rect;
      f->rect[r].x = whole_at(L, ARG_RECTS, at + 1, "x", 0, c->width - 1);
      f->rect[r].y = whole_at(L, ARG_RECTS, at + 2, "y", 0, c->height - 1);
      f->rect[r].width = whole_at(L, ARG_RECTS, at + 3, "width", 1, c->width - f->rect[r].x);
      f->rect[r].height = whole_at(L, ARG_RECTS, at + 4, "height", 1, c->height - f->rect[r].y);
      f->rect[r].weight = real_at(L, ARG_RECTS, at + 5);
    }
  }
}

/* Ways lead to nodes further on alone, so that each ends at a leaf. */
static void fill_nodes(lua_State *L, Cascade *c, const CascadeTree *tree) {
  for (int32_t i = 0; i < tree->nodes; i++) {
    lua_Integer at = 4 * (lua_Integer)(tree->first_node + i);
    CascadeNode *node = &c->node[tree->first_node + i];
    node->left = whole_at(L, ARG_NODES, at + 1, "left", -tree->nodes, tree->nodes - 1);
    node->right = whole_at(L, ARG_NODES, at + 2, "right", -tree->nodes, tree->nodes - 1);
    node->feature = whole_at(L, ARG_NODES, at + 3, "feature", 0, c->features - 1);
    node->threshold = real_at(L, ARG_NODES, at + 4);
    if ((node->left > 0 && node->left <= i) || (node->right > 0 && node->right <= i))
      tensor_error(L, "cascade: node %d of a tree leads back", (int)i);
  }
}

static void fill_trees(lua_State *L, Cascade *c) {
  int32_t node = 0, leaf = 0;
  for (int32_t i = 0; i < c->trees; i++) {
    CascadeTree *tree = &c->tree[i];
    *tree = (CascadeTree){whole_at(L, ARG_TREES, i + 1, "nodes", 1, c->nodes), node, leaf};
    if (tree->nodes > c->nodes - node || tree->nodes + 1 > c->leaves - leaf)
      tensor_error(L, "cascade: tree %d lacks nodes or leaves", (int)i + 1);
    fill_nodes(L, c, tree);
    node += tree->nodes;
    leaf += tree->nodes + 1;
  }
  for (int32_t i = 0; i < c->leaves; i++) c->leaf[i] = real_at(L, ARG_LEAVES, i + 1);
}

static const double THRESHOLD_SLACK = 1e-5; /* as OpenCV gives */

static void fill_stages(lua_State *L, Cascade *c) {
  int32_t tree = 0;
  for (int32_t i = 0; i < c->stages; i++) {
    int32_t trees = whole_at(L, ARG_STAGES, 2 * (lua_Integer)i + 1, "trees", 1, c->trees);
    if (trees > c->trees - tree) tensor_error(L, "cascade: stage %d lacks trees", (int)i + 1);
    CascadeStage *stage = &c->stage[i];
    *stage = (CascadeStage){trees, tree, real_at(L, ARG_STAGES, 2 * (lua_Integer)i + 2) - (float)THRESHOLD_SLACK, true};
    for (int32_t t = 0; t < trees; t++) stage->stumps = stage->stumps && c->tree[tree + t].nodes == 1;
    tree += trees;
  }
}

static size_t size_of(const Cascade *c) {
  return sizeof *c + (size_t)c->stages * sizeof *c->stage + (size_t)c->trees * sizeof *c->tree +
         (size_t)c->nodes * sizeof *c->node + (size_t)c->leaves * sizeof *c->leaf +
         (size_t)c->features * sizeof *c->feature;
}

/* Sets where in 'memory' the lists lie, behind the head. What they hold is aligned to four bytes. */
static void lay_out(Cascade *c, char *memory) {
  c->stage = (void *)(memory + sizeof *c);
  c->tree = (void *)(c->stage + c->stages);
  c->node = (void *)(c->tree + c->trees);
  c->leaf = (void *)(c->node + c->nodes);
  c->feature = (void *)(c->leaf + c->leaves);
}

/* new(width, height, stages {trees, threshold, ...}, trees {nodes, ...}, nodes {left, right, feature, threshold, ...},
       leaves {...}, features {rectangles, ...}, rectangles {x, y, width, height, weight, ...}) -> a cascade
   Features count from 0; left and right are nodes of the tree, from 0, or minus the number of a leaf, from 0. */
static int l_new(lua_State *L) {
  Cascade c = {0};
  c.width = (int32_t)luaL_checkinteger(L, 1);
  c.height = (int32_t)luaL_checkinteger(L, 2);
  if (c.width < WINDOW_LEAST || c.width > WINDOW_MOST || c.height < WINDOW_LEAST || c.height > WINDOW_MOST)
    tensor_error(L, "cascade: a window has sides of %d to %d pixels, got %d x %d", WINDOW_LEAST, WINDOW_MOST,
                 (int)c.height, (int)c.width);
  c.stages = check_list(L, ARG_STAGES, "stages", 2);
  c.trees = check_list(L, ARG_TREES, "trees", 1);
  c.nodes = check_list(L, ARG_NODES, "nodes", 4);
  c.leaves = check_list(L, ARG_LEAVES, "leaves", 1);
  c.features = check_list(L, ARG_FEATURES, "features", 1);
  int32_t rects = check_list(L, ARG_RECTS, "rectangles", 5);
  char *memory = lua_newuserdatauv(L, size_of(&c), 0);
  lay_out(&c, memory);
  fill_features(L, &c, rects);
  fill_trees(L, &c);
  fill_stages(L, &c);
  memcpy(memory, &c, sizeof c);
  luaL_setmetatable(L, CASCADE_TYPE);
  return 1;
}

/* ---- searching ---- */

static void *push_array(lua_State *L, size_t item, size_t count) {
  return scratch_push(L, count * item / sizeof(real) + 1);
}

static const Tensor *push_gray(lua_State *L, int arg) {
  const Tensor *t = images_push(L, arg, "face.detect");
  if (t->dtype != DTYPE_U8 || t->shape[0] != 1 || t->shape[1] != 1)
    tensor_error(L, "face.detect: u8 1 x H x W expected, got %s %s", dtype_name(t->dtype),
                 tensor_describe(L, lua_touserdata(L, arg)));
  if (t->shape[2] > SIDE_MOST || t->shape[3] > SIDE_MOST)
    tensor_error(L, "face.detect: at most %d pixels a side, got %s", SIDE_MOST,
                 tensor_describe(L, lua_touserdata(L, arg)));
  return t;
}

/* Of the level that has most of them. */
static size_t most_windows(const CascadeLevel *levels, int count) {
  size_t most = 0;
  for (int i = 0; i < count; i++) {
    size_t windows = (size_t)levels[i].across * (size_t)levels[i].down;
    if (windows > most) most = windows;
  }
  return most;
}

static void push_work(lua_State *L, CascadeWork *w, const CascadeLevel *levels, int count) {
  const CascadeLevel *first = &levels[0];
  size_t width = (size_t)first->width, sums = (size_t)(first->height + 1);
  w->stride = cascade_stride(first);
  w->sum = push_array(L, sizeof *w->sum, sums * (size_t)w->stride);
  w->square = push_array(L, sizeof *w->square, sums * (size_t)w->stride);
  w->placed = push_array(L, sizeof *w->placed, (size_t)w->cascade->nodes);
  w->first = push_array(L, sizeof *w->first, width);
  w->part = push_array(L, sizeof *w->part, width);
  w->hit = push_array(L, 1, most_windows(levels, count));
  w->own = push_array(L, 1, (size_t)cascade_own_size(first, w->width) * (size_t)omp_get_max_threads());
}

static int push_faces(lua_State *L, const CascadeFace *faces, long count) {
  lua_createtable(L, (int)count * 5, 0);
  for (long i = 0; i < count; i++) {
    const int32_t numbers[5] = {faces[i].box.x, faces[i].box.y, faces[i].box.width, faces[i].box.height,
                                faces[i].neighbours};
    for (int k = 0; k < 5; k++) {
      lua_pushinteger(L, numbers[k]);
      lua_rawseti(L, -2, 5 * i + k + 1);
    }
  }
  return 1;
}

/* Boxes from all levels; -1 where there are too many. */
static long scan_levels(CascadeWork *work, const CascadeLevel *levels, int count, CascadeBox *found) {
  long boxes = 0;
  for (int i = 0; i < count && boxes >= 0 && !interrupted(); i++) boxes = cascade_scan(work, &levels[i], found, boxes);
  return boxes;
}

/* detect(cascade, gray u8 1 x H x W, scale factor, least neighbours, least side, most side)
     -> {x, y, width, height, neighbours, ...}; nil where more than most_windows windows pass */
static int l_detect(lua_State *L) {
  CascadeLevel levels[CASCADE_LEVELS];
  const Cascade *cascade = luaL_checkudata(L, 1, CASCADE_TYPE);
  CascadeSearch search = {luaL_checknumber(L, 3), (int32_t)tensor_check_size(L, 5, "face.detect: min_size", 0),
                          (int32_t)tensor_check_size(L, 6, "face.detect: max_size", 0)};
  long least = tensor_check_size(L, 4, "face.detect: min_neighbors", 0);
  if (!(search.scale_factor >= 1.01)) tensor_error(L, "face.detect: scale_factor must be 1.01 or more");
  lua_settop(L, 6);
  const Tensor *gray = push_gray(L, 2);
  CascadeWork work = {
      .cascade = cascade, .gray = gray->data, .height = (int32_t)gray->shape[2], .width = (int32_t)gray->shape[3]};
  int count = cascade_levels(cascade, work.height, work.width, &search, levels), top = lua_gettop(L);
  if (count == 0) return push_faces(L, NULL, 0);
  push_work(L, &work, levels, count);
  CascadeBox *found = push_array(L, sizeof *found, CASCADE_FOUND);
  int32_t *label = push_array(L, sizeof *label, CASCADE_FOUND), *queue = push_array(L, sizeof *queue, CASCADE_FOUND);
  CascadeFace *faces = push_array(L, sizeof *faces, CASCADE_FOUND);
  long boxes = scan_levels(&work, levels, count, found);
  if (boxes > 0) boxes = cascade_group(found, boxes, (int32_t)least, work.height, work.width, label, queue, faces);
  tensor_check_interrupt(L);
  if (boxes < 0)
    lua_pushnil(L);
  else
    push_faces(L, faces, boxes);
  for (int i = top + 1; i < lua_gettop(L); i++) scratch_release(L, i);
  return 1;
}

static const luaL_Reg functions[] = {{"new", l_new}, {"detect", l_detect}, {NULL, NULL}};

int luaopen_feral_core_cascade(lua_State *L) {
  luaL_newmetatable(L, CASCADE_TYPE);
  lua_pop(L, 1);
  luaL_newlib(L, functions);
  lua_pushinteger(L, CASCADE_FOUND);
  lua_setfield(L, -2, "most_windows");
  return 1;
}
