/*
** steps.c -- lists of steps for Lua: what steps there are, lists made of plain tables, and running one on an image. What the
** steps do is in steps/, how a list is run in kernels/image/steps.c; the library's side is lua/feral/steps/.
*/
#include "steps.h"

#include "../tensor/images.h"

/* The steps, in the order in which help names them. A new one is a file in steps/ and a line here. */
/* clang-format off */
#define STEPS(STEP) \
  STEP(gray) \
  STEP(rgb) \
  STEP(crop) \
  STEP(resize) \
  STEP(equalize) \
  STEP(round) \
  STEP(normalize) \
  STEP(random_crop) \
  STEP(rotate) \
  STEP(shift) \
  STEP(zoom) \
  STEP(shear) \
  STEP(mirror) \
  STEP(brightness) \
  STEP(contrast) \
  STEP(gamma) \
  STEP(light) \
  STEP(blur) \
  STEP(sharpen) \
  STEP(noise) \
  STEP(erase) \
  STEP(mixup)
/* clang-format on */

#define DECLARE(name) extern const StepKind step_##name;
STEPS(DECLARE)
#define ADDRESS(name) &step_##name,
static const StepKind *const kinds[] = {STEPS(ADDRESS) NULL};

static const char *const list_type = "feral.steps";

const StepList *steps_check(lua_State *L, int arg) {
  return luaL_checkudata(L, arg, list_type);
}

static int count_options(const StepKind *kind) {
  int n = 0;
  while (n < STEP_OPTIONS && kind->option[n].name != NULL) n++;
  return n;
}

/* ---- what there is ---- */

static void set_number(lua_State *L, const char *name, double value) {
  if (isnan(value)) return;
  lua_pushnumber(L, value);
  lua_setfield(L, -2, name);
}

static void push_option(lua_State *L, const StepOption *option) {
  static const char *const types[] = {"number", "whole", "choice", "channels"};
  lua_newtable(L);
  lua_pushstring(L, option->name);
  lua_setfield(L, -2, "name");
  lua_pushstring(L, types[option->type]);
  lua_setfield(L, -2, "type");
  set_number(L, "least", option->least);
  set_number(L, "most", option->most);
  if (isfinite(option->otherwise)) set_number(L, "otherwise", option->otherwise);
  if (option->type != STEP_CHOICE) return;
  lua_newtable(L);
  for (int i = 0; option->choices[i] != NULL; i++) {
    lua_pushstring(L, option->choices[i]);
    lua_rawseti(L, -2, i + 1);
  }
  lua_setfield(L, -2, "choices");
}

/* kinds() -> a list of {name, about, random, options = {{name, type, least, most, otherwise, choices}}} */
static int l_kinds(lua_State *L) {
  lua_newtable(L);
  for (int i = 0; kinds[i] != NULL; i++) {
    lua_newtable(L);
    lua_pushstring(L, kinds[i]->name);
    lua_setfield(L, -2, "name");
    lua_pushstring(L, kinds[i]->about);
    lua_setfield(L, -2, "about");
    lua_pushboolean(L, kinds[i]->random);
    lua_setfield(L, -2, "random");
    lua_newtable(L);
    for (int k = 0; k < count_options(kinds[i]); k++) {
      push_option(L, &kinds[i]->option[k]);
      lua_rawseti(L, -2, k + 1);
    }
    lua_setfield(L, -2, "options");
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

/* ---- making a list ---- */

static const StepKind *check_kind(lua_State *L, const char *name) {
  for (int i = 0; kinds[i] != NULL; i++)
    if (name != NULL && strcmp(kinds[i]->name, name) == 0) return kinds[i];
  tensor_error(L, "steps: there is no step '%s'", name != NULL ? name : "?");
}

/* The number at the top of the stack as a value of the option; what may stand there depends on its type. */
static double check_value(lua_State *L, const StepKind *kind, const StepOption *option) {
  int is_number = lua_type(L, -1) == LUA_TNUMBER;
  double value = lua_tonumber(L, -1);
  if (is_number && value >= option->least && value <= option->most &&
      (option->type != STEP_WHOLE || value == floor(value)))
    return value;
  tensor_error(L, "%s: %s must be a %snumber from %f to %f, got %s", kind->name, option->name,
               option->type == STEP_WHOLE ? "whole " : "", option->least, option->most, luaL_tolstring(L, -1, NULL));
}

static double check_choice(lua_State *L, const StepKind *kind, const StepOption *option) {
  const char *given = luaL_tolstring(L, -1, NULL);
  luaL_Buffer b;
  for (int i = 0; option->choices[i] != NULL; i++)
    if (strcmp(option->choices[i], given) == 0) return lua_pop(L, 1), i;
  luaL_buffinit(L, &b);
  for (int i = 0; option->choices[i] != NULL; i++) {
    if (i > 0) luaL_addstring(&b, option->choices[i + 1] != NULL ? ", " : " or ");
    luaL_addstring(&b, option->choices[i]);
  }
  luaL_pushresult(&b);
  tensor_error(L, "%s: %s must be %s, got '%s'", kind->name, option->name, lua_tostring(L, -1), given);
}

/* Reads the values of an option that has one for each channel from the table at the top of the stack. */
static void check_channels(lua_State *L, Step *s, int k) {
  const StepOption *option = &s->kind->option[k];
  size_t count = lua_rawlen(L, -1);
  if (count < 1 || count > PIXEL_CHANNELS)
    tensor_error(L, "%s: %s must be a number or a list of 1 to %d, got a list of %d", s->kind->name, option->name,
                 (int)PIXEL_CHANNELS, (int)count);
  s->count[k] = (int)count;
  for (int c = 0; c < (int)count; c++) {
    lua_rawgeti(L, -1, c + 1);
    s->value[k][c] = check_value(L, s->kind, option);
    lua_pop(L, 1);
  }
}

/* The option's value in the table at the top of the stack. */
static void check_option(lua_State *L, Step *s, int k) {
  const StepOption *option = &s->kind->option[k];
  s->count[k] = 1;
  lua_pushstring(L, option->name);
  int type = lua_rawget(L, -2);
  if (type == LUA_TNIL && isinf(option->otherwise))
    s->value[k][0] = s->value[k - 1][0];
  else if (type == LUA_TNIL && isnan(option->otherwise))
    tensor_error(L, "%s: %s is missing", s->kind->name, option->name);
  else if (type == LUA_TNIL)
    s->value[k][0] = option->otherwise;
  else if (option->type == STEP_CHOICE)
    s->value[k][0] = check_choice(L, s->kind, option);
  else if (option->type == STEP_CHANNELS && type == LUA_TTABLE)
    check_channels(L, s, k);
  else
    s->value[k][0] = check_value(L, s->kind, option);
  lua_pop(L, 1);
}

static void check_order(lua_State *L, const StepList *list) {
  const StepKind *mixing = NULL;
  for (int i = 0; i < list->count; i++) {
    const StepKind *kind = list->step[i].kind;
    if (kind->last && i + 1 < list->count)
      tensor_error(L, "steps: %s must be the last step, here comes %s behind it", kind->name,
                   list->step[i + 1].kind->name);
    if (kind->mix != NULL && mixing != NULL)
      tensor_error(L, "steps: a list mixes samples once, not by %s and by %s", mixing->name, kind->name);
    if (kind->mix != NULL) mixing = kind;
  }
}

/* list{{name = "rotate", degrees = 10}, ...} -> a list. The library has refused names of options that do not exist. */
static int l_list(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  size_t count = lua_rawlen(L, 1);
  if (count > STEPS_MOST) tensor_error(L, "steps: a list has at most %d steps, got %d", (int)STEPS_MOST, (int)count);
  StepList *list = lua_newuserdatauv(L, sizeof *list + count * sizeof *list->step, 0);
  *list = (StepList){.count = (int)count};
  luaL_setmetatable(L, list_type);
  for (int i = 0; i < list->count; i++) {
    if (lua_rawgeti(L, 1, i + 1) != LUA_TTABLE) tensor_error(L, "steps: step %d is no table", i + 1);
    lua_pushliteral(L, "name");
    lua_rawget(L, -2);
    list->step[i] = (Step){.kind = check_kind(L, lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : NULL)};
    lua_pop(L, 1);
    for (int k = 0; k < count_options(list->step[i].kind); k++) check_option(L, &list->step[i], k);
    lua_pop(L, 1);
  }
  check_order(L, list);
  return 1;
}

/* plain(list) -> the table that list() makes it of again, with all values filled in */
static int l_plain(lua_State *L) {
  const StepList *list = steps_check(L, 1);
  lua_newtable(L);
  for (int i = 0; i < list->count; i++) {
    const Step *s = &list->step[i];
    lua_newtable(L);
    lua_pushstring(L, s->kind->name);
    lua_setfield(L, -2, "name");
    for (int k = 0; k < count_options(s->kind); k++) {
      const StepOption *option = &s->kind->option[k];
      if (option->type == STEP_CHOICE)
        lua_pushstring(L, option->choices[(int)step_value(s, k)]);
      else if (option->type == STEP_WHOLE)
        lua_pushinteger(L, (lua_Integer)step_value(s, k));
      else if (s->count[k] == 1)
        lua_pushnumber(L, step_value(s, k));
      else {
        lua_newtable(L);
        for (int c = 0; c < s->count[k]; c++) {
          lua_pushnumber(L, s->value[k][c]);
          lua_rawseti(L, -2, c + 1);
        }
      }
      lua_setfield(L, -2, option->name);
    }
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

/* ---- using one ---- */

static int fail(lua_State *L, const char *message) {
  lua_pushnil(L);
  lua_pushstring(L, message);
  return 2;
}

/* shape(list, training, channels, height, width) -> channels, height, width of the result for an image of bytes of that
   size; or nil, message */
static int l_shape(lua_State *L) {
  const StepList *list = steps_check(L, 1);
  char message[STEP_MESSAGE];
  Image image = {.bytes = true,
                 .channels = tensor_check_size(L, 3, "steps: channels", 1),
                 .height = tensor_check_size(L, 4, "steps: height", 1),
                 .width = tensor_check_size(L, 5, "steps: width", 1)};
  if (image.channels > PIXEL_CHANNELS) tensor_error(L, "steps: an image has at most %d channels", (int)PIXEL_CHANNELS);
  if (!steps_shape(list, lua_toboolean(L, 2), &image, message)) return fail(L, message);
  lua_pushinteger(L, image.channels);
  lua_pushinteger(L, image.height);
  lua_pushinteger(L, image.width);
  lua_pushboolean(L, image.bytes);
  return 4;
}

static void push_map(lua_State *L, const WarpMap *map) {
  lua_createtable(L, 6, 0);
  for (int i = 0; i < 6; i++) {
    lua_pushnumber(L, map->of[i]);
    lua_rawseti(L, -2, i + 1);
  }
}

/* run(list, image, training, seed, epoch, number, to_bytes) -> the result, 1 x C x H x W, and where its pixels lie in the image:
   six numbers, see kernels/image/warp.h; or nil, message.
   image: C x H x W, bytes, or reals of 0 to 255. Mixing steps do nothing. */
static int l_run(lua_State *L) {
  const StepList *list = steps_check(L, 1);
  lua_settop(L, 7);
  const Tensor *t = images_push(L, 2, "steps");
  if (t->dtype == DTYPE_I32 || t->shape[0] != 1 || t->shape[1] > PIXEL_CHANNELS)
    tensor_error(L, "steps: an image C x H x W of bytes or floats expected, got %s %s", dtype_name(t->dtype),
                 tensor_describe(L, lua_touserdata(L, 2)));
  Image image = {t->dtype == DTYPE_U8, t->shape[2], t->shape[3], t->shape[1], t->data}, shape = image;
  StepsJob job = {.list = list,
                  .training = lua_toboolean(L, 3),
                  .seed = (uint64_t)luaL_optinteger(L, 4, 0),
                  .epoch = (uint64_t)luaL_optinteger(L, 5, 0),
                  .number = (uint64_t)luaL_optinteger(L, 6, 0)};
  bool to_bytes = lua_toboolean(L, 7);
  if (!steps_shape(list, job.training, &shape, job.message)) return fail(L, job.message);
  size_t size = steps_memory(list, job.training, &image);
  job.memory = scratch_push(L, size / sizeof(real) + 1);
  int scratch = lua_gettop(L);
  Tensor *result = images_push_new(L, to_bytes ? DTYPE_U8 : DTYPE_REAL, 1, shape.channels, shape.height, shape.width);
  const char *error = steps_run(&job, &image, to_bytes, result->data);
  scratch_release(L, scratch);
  if (error != NULL) return fail(L, error);
  push_map(L, &job.map);
  return 2;
}

static const luaL_Reg functions[] = {{"kinds", l_kinds}, {"list", l_list}, {"plain", l_plain},
                                     {"shape", l_shape}, {"run", l_run},   {NULL, NULL}};

int luaopen_feral_core_steps(lua_State *L) {
  luaL_newmetatable(L, list_type);
  luaL_newlib(L, functions);
  return 1;
}
