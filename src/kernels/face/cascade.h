/*
** cascade.h -- faces by a cascade of boosted classifiers on Haar-like features (Viola and Jones 2001; Lienhart and Maydt 2002),
** searched at many sizes in the way of OpenCV 4.6's CascadeClassifier, so that the same cascade finds the same boxes. Kernels
** allocate nothing: their memory is given.
*/
#ifndef FERAL_CASCADE_H
#define FERAL_CASCADE_H

#include <stdbool.h>
#include <stdint.h>

enum { CASCADE_RECTS = 3, CASCADE_LEVELS = 1024, CASCADE_FOUND = 1 << 16 };

/* Sums of pixels under rectangles of the window, weighted. */
typedef struct CascadeFeature {
  int32_t count;
  struct {
    int32_t x, y, width, height;
    float weight;
  } rect[CASCADE_RECTS];
} CascadeFeature;

/* Where the feature is below the threshold the way is 'left', else 'right': above 0 that node of the tree, else minus that leaf. */
typedef struct CascadeNode {
  int32_t left, right, feature;
  float threshold;
} CascadeNode;

typedef struct CascadeTree {
  int32_t nodes, first_node, first_leaf; /* it has nodes + 1 leaves */
} CascadeTree;

/* The window stays in play where the leaves of the trees sum up to 'threshold' at least. */
typedef struct CascadeStage {
  int32_t trees, first_tree;
  float threshold;
  bool stumps; /* each tree has one node */
} CascadeStage;

typedef struct Cascade {
  int32_t width, height; /* of the window */
  int32_t stages, trees, nodes, leaves, features;
  CascadeStage *stage;
  CascadeTree *tree;
  CascadeNode *node;
  float *leaf;
  CascadeFeature *feature;
} Cascade;

typedef struct CascadeBox {
  int32_t x, y, width, height;
} CascadeBox;

typedef struct CascadeFace {
  CascadeBox box;
  int32_t neighbours; /* windows that were found there */
} CascadeFace;

/* The image made smaller by 'scale', and the windows on it: 'down' rows of 'across', 'step' pixels apart. */
typedef struct CascadeLevel {
  float scale;
  int32_t width, height, step, across, down;
} CascadeLevel;

typedef struct CascadeSearch {
  double scale_factor;
  int32_t least, most; /* sides of windows in pixels of the image */
} CascadeSearch;

/* The levels of a search, at most CASCADE_LEVELS; returns how many. Level 0 is the largest. */
int cascade_levels(const Cascade *cascade, int32_t height, int32_t width, const CascadeSearch *search,
                   CascadeLevel *levels);

/* A node with its feature's rectangles as the places of their corners among the sums. Those it lacks weigh nothing. */
typedef struct CascadePlaced {
  int32_t corner[CASCADE_RECTS][4];
  float weight[CASCADE_RECTS], threshold;
  int32_t way[2]; /* below the threshold, and not */
} CascadePlaced;

typedef struct CascadeWork {
  const Cascade *cascade;
  const uint8_t *gray;    /* (height,width) */
  int32_t height, width;  /* of the image */
  int32_t stride;         /* elements from row to row of the sums: cascade_stride */
  uint32_t *sum, *square; /* (height of level 0 + 1,stride) each */
  CascadePlaced *placed;  /* (nodes) */
  int32_t *first, *part;  /* (width of level 0) each */
  uint8_t *hit;           /* (down,across) of level 0 */
  char *own;              /* cascade_own_size bytes for each thread */
  int32_t step;           /* that nodes are placed for; 0 at first */
} CascadeWork;

int32_t cascade_stride(const CascadeLevel *first);
long cascade_own_size(const CascadeLevel *first, int32_t width);

/* Looks at all windows of a level and appends the boxes of those that pass all stages to found[count ...]; returns the new
   count, or -1 when there are more than CASCADE_FOUND. */
long cascade_scan(CascadeWork *work, const CascadeLevel *level, CascadeBox *found, long count);

/* Boxes that lie close together become their mean, where they are more than 'least'; a face inside of another one of more
   boxes is dropped. With 'least' 0 all boxes stay as they are. label, queue: (count) each. Writes at most 'count' faces, cut to
   the image; returns how many. */
long cascade_group(const CascadeBox *found, long count, int32_t least, int32_t height, int32_t width, int32_t *label,
                   int32_t *queue, CascadeFace *faces);

#endif
