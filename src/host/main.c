/* main.c -- the program: options, scripts, exit codes and 'arg' as the stock lua's; verbs; the prompt. */
#include <lauxlib.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../base/alloc.h"
#include "engine.h"
#include "repl.h"
#include "signals.h"

enum { FAILED = 1, MISUSED = 2, INTERRUPTED = 130 };

/* ---- threads ---- */

/* libgomp's threads stay awake for some milliseconds when they have nothing to do, at the cost of whatever else wants
   their core. It reads how long only when it is loaded, so the program starts once more with an answer of its own:
   about 0.2 ms, which on an idle machine is faster than its default and than sleeping at once. */
static void set_waiting(char **argv) {
  char path[4096];
  ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
  if (length <= 0 || getenv("GOMP_SPINCOUNT") != NULL || getenv("OMP_WAIT_POLICY") != NULL) return;
  path[length] = '\0';
  if (setenv("GOMP_SPINCOUNT", "10000", 1) == 0) execv(path, argv); /* where that fails, all works as it is */
}

/* ---- the state ---- */

static Pool pool;

/* What this process may use, in bytes: the machine's memory, or the smaller limit of its container. */
static double memory_there(void) {
  double all = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE), limit;
  FILE *file = fopen("/sys/fs/cgroup/memory.max", "r");
  if (file != NULL && fscanf(file, "%lf", &limit) == 1 && limit < all) all = limit;
  if (file != NULL) fclose(file);
  return all;
}

static int panic(lua_State *L) {
  const char *message = lua_tostring(L, -1);
  fprintf(stderr, "feral: error outside any protected call: %s\n", message != NULL ? message : "no message");
  return 0;
}

/* Lua's warn(): off until "@on"; a message may come in pieces. */
static void warn(void *ud, const char *message, int goes_on) {
  static bool on, inside;
  (void)ud;
  if (!inside && !goes_on && message[0] == '@') {
    if (strcmp(message, "@on") == 0) on = true;
    if (strcmp(message, "@off") == 0) on = false;
    return;
  }
  if (on) fprintf(stderr, "%s%s%s", inside ? "" : "Lua warning: ", message, goes_on ? "" : "\n");
  inside = goes_on;
}

/* A state on the pool, which may take up to 80 % of the memory: beyond, a script gets "not enough memory" and the
   system does not come to a stop. tensor.memory_cap changes that. */
static lua_State *new_state(void) {
  pool.cap = (size_t)(0.8 * memory_there());
  lua_State *L = lua_newstate(pool_alloc, &pool);
  if (L == NULL) return NULL;
  lua_atpanic(L, panic);
  lua_setwarnf(L, warn, NULL);
  return L;
}

/* ---- protected calls ---- */

/* Message handlers: any error value as text, with a traceback; and a string as it is. */
static int add_traceback(lua_State *L) {
  const char *message = lua_tostring(L, 1);
  if (message == NULL && luaL_callmeta(L, 1, "__tostring") && lua_type(L, -1) == LUA_TSTRING) return 1;
  if (message == NULL) message = lua_pushfstring(L, "(error object is a %s value)", luaL_typename(L, 1));
  luaL_traceback(L, L, message, 1);
  return 1;
}

static int keep_message(lua_State *L) {
  return lua_isstring(L, 1) ? 1 : add_traceback(L);
}

static int report(lua_State *L, int code) {
  fprintf(stderr, "feral: %s\n", lua_tostring(L, -1));
  lua_pop(L, 1);
  return code;
}

/* Calls the function below 'arguments' values. 0, or the exit code after the error was reported. */
static int call_with(lua_State *L, lua_CFunction handler, int arguments, int results) {
  int base = lua_gettop(L) - arguments;
  lua_pushcfunction(L, handler);
  lua_insert(L, base);
  int status = lua_pcall(L, arguments, results, base);
  bool interrupted = signals_settle(L);
  lua_remove(L, base);
  return status == LUA_OK ? 0 : report(L, interrupted ? INTERRUPTED : FAILED);
}

static int call(lua_State *L, int arguments, int results) {
  return call_with(L, add_traceback, arguments, results);
}

/* Runs what luaL_load... left. */
static int call_loaded(lua_State *L, int status) {
  return status == LUA_OK ? call(L, 0, 0) : report(L, FAILED);
}

static int run_string(lua_State *L, const char *code, const char *name) {
  return call_loaded(L, luaL_loadbuffer(L, code, strlen(code), name));
}

static int run_file(lua_State *L, const char *name) {
  return call_loaded(L, luaL_loadfile(L, name));
}

/* Calls feral.cli's function 'name' with the strings of words, of which NULL is the last. Its result is the exit code.
 */
static int run_cli(lua_State *L, const char *name, char **words) {
  int count = 0, code;
  lua_getglobal(L, "require");
  lua_pushliteral(L, "feral.cli");
  if ((code = call(L, 1, 1)) != 0) return code;
  lua_getfield(L, -1, name);
  for (; words[count] != NULL; count++) {
    luaL_checkstack(L, 2, "too many arguments");
    lua_pushstring(L, words[count]);
  }
  if ((code = call_with(L, keep_message, count, 1)) != 0) return code; /* feral.cli adds a traceback where one helps */
  return (int)lua_tointeger(L, -1);
}

/* ---- options ---- */

typedef struct Options {
  int script;              /* index of the first word that is no option; argc where there is none */
  int unknown, incomplete; /* index of an option that is unknown, or lacks its argument */
  bool interactive, version, help, execute, no_environment;
} Options;

/* Reads option argv[i] and returns the index of its last word, or 0 when it is wrong. */
static int read_option(Options *o, char **argv, int i) {
  const char *word = argv[i];
  if (strcmp(word, "--help") == 0) return o->help = true, i;
  if (strcmp(word, "--version") == 0) return o->version = true, i;
  if (word[1] == 'e' || word[1] == 'l') {
    if (word[1] == 'e') o->execute = true;
    if (word[2] != '\0') return i;
    if (argv[i + 1] != NULL && argv[i + 1][0] != '-') return i + 1;
    o->incomplete = i;
    return 0;
  }
  if (word[2] != '\0' || strchr("EivW", word[1]) == NULL) {
    o->unknown = i;
    return 0;
  }
  o->no_environment |= word[1] == 'E';
  o->interactive |= word[1] == 'i';
  o->version |= word[1] == 'v';
  return i;
}

static Options read_options(int argc, char **argv) {
  Options o = {.script = argc};
  for (int i = 1; i < argc; i++) {
    if (argv[i][0] != '-' || argv[i][1] == '\0') return o.script = i, o;
    if (strcmp(argv[i], "--") == 0) return o.script = i + 1, o;
    i = read_option(&o, argv, i);
    if (i == 0) return o;
  }
  return o;
}

/* 'arg': the script at 0, its arguments from 1 on, the rest below 0; without a script the program at 0. */
static void set_arg(lua_State *L, int argc, char **argv, int script) {
  int zero = script < argc ? script : 0;
  lua_createtable(L, argc - zero, zero + 1);
  for (int i = 0; i < argc; i++) {
    lua_pushstring(L, argv[i]);
    lua_rawseti(L, -2, i - zero);
  }
  lua_setglobal(L, "arg");
}

/* -l mod, -l name=mod */
static int run_library(lua_State *L, const char *word) {
  const char *equals = strchr(word, '='), *module = equals != NULL ? equals + 1 : word;
  lua_getglobal(L, "require");
  lua_pushstring(L, module);
  int code = call(L, 1, 1);
  if (code != 0) return code;
  lua_pushglobaltable(L);
  lua_pushlstring(L, word, equals != NULL ? (size_t)(equals - word) : strlen(word));
  lua_rotate(L, -3, -1);
  lua_settable(L, -3);
  lua_pop(L, 1);
  return 0;
}

/* What -e, -l and -W ask for, in their order. */
static int run_options(lua_State *L, char **argv, int end) {
  int code = 0;
  for (int i = 1; i < end && code == 0; i++) {
    char kind = argv[i][1];
    if (kind == 'W') lua_warning(L, "@on", 0);
    if (kind != 'e' && kind != 'l') continue;
    const char *word = argv[i][2] != '\0' ? argv[i] + 2 : argv[++i];
    code = kind == 'e' ? run_string(L, word, "=(command line)") : run_library(L, word);
  }
  return code;
}

static int run_lua_init(lua_State *L) {
  const char *name = "=LUA_INIT_5_4", *init = getenv(name + 1);
  if (init == NULL) init = getenv((name = "=LUA_INIT") + 1);
  if (init == NULL) return 0;
  return init[0] == '@' ? run_file(L, init + 1) : run_string(L, init, name);
}

/* ---- scripts and verbs ---- */

/* A word that is no file and does not look like one is a verb. A folder is no file: 'train' may well be one. */
static bool is_verb(const char *word) {
  struct stat info;
  size_t length = strlen(word);
  if (strchr(word, '/') != NULL || (length > 4 && strcmp(word + length - 4, ".lua") == 0)) return false;
  return stat(word, &info) != 0 || S_ISDIR(info.st_mode);
}

static int run_script(lua_State *L, char **words, bool only_file) {
  const char *name = strcmp(words[0], "-") == 0 && !only_file ? NULL : words[0];
  if (name != NULL && is_verb(name)) return run_cli(L, "run", words);
  int status = luaL_loadfile(L, name), count = 0;
  if (status != LUA_OK) return report(L, FAILED);
  for (; words[count + 1] != NULL; count++) {
    luaL_checkstack(L, 2, "too many arguments");
    lua_pushstring(L, words[count + 1]);
  }
  return call(L, count, 0);
}

static int run_all(lua_State *L, int argc, char **argv, const Options *o) {
  char *nothing[] = {NULL};
  int code = 0;
  if (o->incomplete > 0) return fprintf(stderr, "feral: '%s' needs an argument\n", argv[o->incomplete]), FAILED;
  if (o->unknown > 0) return run_cli(L, "unknown_option", (char *[]){argv[o->unknown], NULL});
  if (o->help) return run_cli(L, "help", nothing);
  if (o->version && (code = run_cli(L, "version", nothing)) != 0) return code;
  if (!o->no_environment && (code = run_lua_init(L)) != 0) return code;
  if ((code = run_options(L, argv, o->script < argc ? o->script : argc)) != 0) return code;
  if (o->script < argc) code = run_script(L, argv + o->script, strcmp(argv[o->script - 1], "--") == 0);
  if (code != 0) return code;
  bool prompt = o->script >= argc && !o->execute && !o->version;
  if (o->interactive || (prompt && isatty(STDIN_FILENO)))
    repl_run(L);
  else if (prompt)
    code = run_file(L, NULL);
  return code;
}

/* main(argc, argv) under protection; returns the exit code. */
static int l_main(lua_State *L) {
  int argc = (int)lua_tointeger(L, 1);
  char **argv = lua_touserdata(L, 2);
  Options o = read_options(argc, argv);
  luaL_checkversion(L);
  if (o.no_environment) {
    lua_pushboolean(L, 1);
    lua_setfield(L, LUA_REGISTRYINDEX, "LUA_NOENV"); /* for package.path */
  }
  luaL_openlibs(L);
  engine_register(L);
  signals_start(L);
  set_arg(L, argc, argv, o.script);
  lua_pushinteger(L, run_all(L, argc, argv, &o));
  return 1;
}

int main(int argc, char **argv) {
  set_waiting(argv);
  lua_State *L = new_state();
  if (L == NULL) return fprintf(stderr, "feral: cannot start: not enough memory\n"), FAILED;
  lua_pushcfunction(L, l_main);
  lua_pushinteger(L, argc);
  lua_pushlightuserdata(L, argv);
  int status = lua_pcall(L, 2, 1, 0);
  int code = status == LUA_OK ? (int)lua_tointeger(L, -1) : report(L, FAILED);
  signals_stop();
  lua_close(L);
  return code;
}
