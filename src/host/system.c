/* system.c -- what the library asks the system: a clock that only goes forward, what its output goes to, and where the program
   lies. */
#include "system.h"

#include <dlfcn.h>
#include <lauxlib.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

/* clock() -> seconds since some moment, never backwards */
static int l_clock(lua_State *L) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  lua_pushnumber(L, (lua_Number)now.tv_sec + 1e-9 * (lua_Number)now.tv_nsec);
  return 1;
}

/* width(fd) -> columns of the terminal behind a file descriptor (0 to 2), or nil where there is none */
static int l_width(lua_State *L) {
  int fd = (int)luaL_checkinteger(L, 1);
  struct winsize size;
  if (!isatty(fd)) return 0;
  lua_pushinteger(L, ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80);
  return 1;
}

/* The file that holds this code, links followed, in path[PATH_MAX]: the program, or the module in a stock lua's process. */
static const char *find_file(char *path) {
  Dl_info info;
  size_t length = dladdr((void *)(size_t)find_file, &info) != 0 ? strlen(info.dli_fname) : 0;
  bool module = length > 3 && strcmp(info.dli_fname + length - 3, ".so") == 0; /* of a program it may be a bare name */
  return realpath(module ? info.dli_fname : "/proc/self/exe", path);
}

/* file() -> the path of the program's file, or of the module's that a stock lua has loaded; nil where it is not known */
static int l_file(lua_State *L) {
  char path[PATH_MAX];
  lua_pushstring(L, find_file(path));
  return 1;
}

static const luaL_Reg functions[] = {{"clock", l_clock}, {"width", l_width}, {"file", l_file}, {NULL, NULL}};

int open_system(lua_State *L) {
  luaL_newlib(L, functions);
  return 1;
}
