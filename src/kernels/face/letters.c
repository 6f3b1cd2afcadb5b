/*
** letters.c -- see letters.h. A letter is written in units of which a capital is 20 high: x to the right, y down, the baseline at
** 24, the top of capitals at 4, of small letters at 10, the deepest point at 30. A number is one digit to base 36. M moves
** to a point, L draws a line to it, H a quarter of an ellipse that starts level, V one that starts upright; a dot dots.
*/
#include "letters.h"

#include <math.h>
#include <stdbool.h>

typedef struct Letter {
  int width;
  const char *strokes;
} Letter;

static const Letter alphabet[] = {
    [' '] = {3, ""},
    ['!'] = {0, "M04L0g.0n"},
    ['"'] = {4, "M04L09M44L49"},
    ['#'] = {14, "M54L3oMb4L9oM1aLeaM0iLdi"},
    ['$'] = {12, "Mc8V64H09V6eHcjV6oH0kM61L6r"},
    ['%'] = {18, "M44H88V4cH08V44MegHikVeoHakVegMf4L3o"},
    ['&'] = {14, "MeoL3aL38V64H98L8bL1gL0jV5oL7oHeg"},
    ['\''] = {0, "M04L09"},
    ['('] = {4, "M42H0eV4q"},
    [')'] = {4, "M02H4eV0q"},
    ['*'] = {10, "M54L5eM17L9bM97L1b"},
    ['+'] = {12, "M68L6kM0eLce"},
    [','] = {2, "M2nL0s"},
    ['-'] = {8, "M0fL8f"},
    ['.'] = {0, ".0n"},
    ['/'] = {9, "M92L0q"},
    ['0'] = {12, "M64HcaLciV6oH0iL0aV64"},
    ['1'] = {7, "M18L64L6o"},
    ['2'] = {12, "M0aV64HcaLbdL0oLco"},
    ['3'] = {12, "M09V64Hc9V6eL4eM6eHcjV6oH0j"},
    ['4'] = {13, "M9oL94L0iLdi"},
    ['5'] = {12, "Mb4L24L1dV6bHchV6oH0j"},
    ['6'] = {12, "Mb7V74H0eL0iV6oHciV6cH0i"},
    ['7'] = {12, "M04Lc4L4o"},
    ['8'] = {12, "M6eH19V64Hb9V6eHcjV6oH0jV6e"},
    ['9'] = {12, "M1lV5oHceLcaV64H0aV6gHca"},
    [':'] = {0, ".0c.0n"},
    [';'] = {2, ".2cM2nL0s"},
    ['<'] = {11, "Mb7L0eLbl"},
    ['='] = {12, "M0bLcbM0hLch"},
    ['>'] = {11, "M07LbeL0l"},
    ['?'] = {10, "M09V54Ha9L8cL5fL5h.5n"},
    ['@'] = {20, "MgpLaqH0fVa4HkeLkgVhkHefLeaMefVaaH6fVakHef"},
    ['A'] = {14, "M0oL74LeoM2iLci"},
    ['B'] = {12, "M0oL04L64Hb9V6eL0eM6eHcjV6oL0o"},
    ['C'] = {13, "Md8V74H0eV7oHdk"},
    ['D'] = {13, "M04L54HdeV5oL0oL04"},
    ['E'] = {11, "Mb4L04L0oLboM0eLae"},
    ['F'] = {10, "Ma4L04L0oM0eL9e"},
    ['G'] = {14, "Me8V74H0eV7oHehLeeL8e"},
    ['H'] = {12, "M04L0oMc4LcoM0eLce"},
    ['I'] = {0, "M04L0o"},
    ['J'] = {9, "M94L9iV4oH0k"},
    ['K'] = {12, "M04L0oMc4L0gM4cLco"},
    ['L'] = {10, "M04L0oLao"},
    ['M'] = {16, "M0oL04L8iLg4Lgo"},
    ['N'] = {13, "M0oL04LdoLd4"},
    ['O'] = {14, "M74HeeV7oH0eV74"},
    ['P'] = {12, "M0oL04L64HcaV6gL0g"},
    ['Q'] = {14, "M74HeeV7oH0eV74M9jLep"},
    ['R'] = {12, "M0oL04L64HcaV6gL0gM6gLco"},
    ['S'] = {12, "Mc8V64H09V6eHcjV6oH0k"},
    ['T'] = {12, "M04Lc4M64L6o"},
    ['U'] = {12, "M04L0hV6oHchLc4"},
    ['V'] = {14, "M04L7oLe4"},
    ['W'] = {20, "M04L5oLa6LfoLk4"},
    ['X'] = {12, "M04LcoMc4L0o"},
    ['Y'] = {14, "M04L7eLe4M7eL7o"},
    ['Z'] = {12, "M04Lc4L0oLco"},
    ['['] = {4, "M42L02L0qL4q"},
    ['\\'] = {9, "M02L9q"},
    [']'] = {4, "M02L42L4qL0q"},
    ['^'] = {10, "M0bL54Lab"},
    ['_'] = {12, "M0qLcq"},
    ['`'] = {3, "M04L38"},
    ['a'] = {11, "MbaLboMbhV5aH0hV5oHbh"},
    ['b'] = {11, "M04L0oM0hV6aHbhV6oH0h"},
    ['c'] = {10, "MadV5aH0hV5oHal"},
    ['d'] = {11, "Mb4LboMbhV5aH0hV5oHbh"},
    ['e'] = {11, "M0hLbhV5aH0hV5oHal"},
    ['f'] = {7, "M84H39L3oM0aL7a"},
    ['g'] = {11, "MbaLbpV5uH1rMbhV5aH0hV5oHbh"},
    ['h'] = {11, "M04L0oM0gV6aHbgLbo"},
    ['i'] = {0, "M0aL0o.04"},
    ['j'] = {3, "M3aL3qV0u.34"},
    ['k'] = {10, "M04L0oMaaL0jM4gLao"},
    ['l'] = {3, "M04L0kV3o"},
    ['m'] = {18, "M0aL0oM0gV5aH9gL9oM9gVeaHigLio"},
    ['n'] = {11, "M0aL0oM0gV6aHbgLbo"},
    ['o'] = {12, "M6aHchV6oH0hV6a"},
    ['p'] = {11, "M0aL0uM0hV6aHbhV6oH0h"},
    ['q'] = {11, "MbaLbuMbhV5aH0hV5oHbh"},
    ['r'] = {7, "M0aL0oM0gV6aL7a"},
    ['s'] = {10, "M9dV5aH0dV5hHalV5oH0l"},
    ['t'] = {7, "M35L3kV7oM0aL7a"},
    ['u'] = {11, "M0aL0iV5oHbiMbaLbo"},
    ['v'] = {12, "M0aL6oLca"},
    ['w'] = {16, "M0aL4oL8bLcoLga"},
    ['x'] = {10, "M0aLaoMaaL0o"},
    ['y'] = {12, "M0aL6oMcaL3u"},
    ['z'] = {10, "M0aLaaL0oLao"},
    ['{'] = {6, "M62H36L3aV0eH3iL3mV6q"},
    ['|'] = {0, "M02L0q"},
    ['}'] = {6, "M02H36L3aV6eH3iL3mV0q"},
    ['~'] = {12, "M0gL3dL9gLcd"},
};

enum { CAPITAL = 20, BASELINE = 24, GAP = 6, ARC_PIECES = 6 };

static const float HALF = 1.35f, LEAST_HALF = 0.6f, DOT = 1.35f, DEPTH = 6;

static Letter letter_of(char c) {
  return c >= ' ' && c <= '~' ? alphabet[(unsigned char)c] : alphabet['?'];
}

float letters_half(float size) {
  return fmaxf(HALF * size / CAPITAL, LEAST_HALF);
}
float letters_depth(float size) {
  return DEPTH * size / CAPITAL + letters_half(size);
}
float letters_gap(float size) {
  return GAP * size / CAPITAL;
}
float letters_advance(char letter, float size) {
  return (float)(letter_of(letter).width + GAP) * size / CAPITAL;
}

static float digit(char c) {
  return (float)(c <= '9' ? c - '0' : c - 'a' + 10);
}

/* The point at a share of a quarter of an ellipse, which starts level or upright. */
static Point on_arc(Point from, Point to, bool level, float share) {
  float angle = share * 1.57079633f, s = sinf(angle), c = cosf(angle);
  return level ? (Point){from.x + (to.x - from.x) * s, to.y + (from.y - to.y) * c}
               : (Point){to.x + (from.x - to.x) * c, from.y + (to.y - from.y) * s};
}

int letters_pieces(char letter, Point at, float size, LetterPiece pieces[LETTER_PIECES]) {
  const char *s = letter_of(letter).strokes;
  float unit = size / CAPITAL, half = letters_half(size);
  int count = 0;
  Point last = at;
  for (; *s != 0; s += 3) {
    Point to = {at.x + unit * digit(s[1]), at.y + unit * (digit(s[2]) - BASELINE)};
    int steps = *s == 'M' ? 0 : *s == 'H' || *s == 'V' ? ARC_PIECES : 1;
    Point start = last, from = *s == '.' ? to : last;
    for (int i = 1; i <= steps && count < LETTER_PIECES; i++) {
      Point next = steps == 1 ? to : on_arc(start, to, *s == 'H', (float)i / (float)steps);
      pieces[count++] = (LetterPiece){from, next, *s == '.' ? DOT * half : half};
      from = next;
    }
    last = to;
  }
  return count;
}
