--- methods.lua: the methods of tensors by groups, as help(x) lists them, and what those do that come from C.

--- size(x, dim): The size of a dimension; a negative dim counts from the end. #x is the size of the first.
---@param x Tensor
---@param dim integer
---@return integer
--- Raises when x has no such dimension.

--- dim(x): The number of dimensions; 0 for a tensor of a single number.
---@return integer

--- numel(x): The number of elements.
---@return integer

--- strides(x): How far apart neighbours along each dimension lie in memory, in elements.
---@return integer[]

--- is_contiguous(x): True when the elements lie in memory row after row, without gaps.
---@return boolean

--- is_released(x): True when x's memory was given back, by a scope that has ended: its elements can no longer be read.
---@return boolean

--- shape(): The sizes as a list, x.shape: {32, 1, 48, 48}.

--- dtype(): The type of the elements, x.dtype: "f32", "u8" or "i32".

--- grad(): The gradient that backward() has collected in a leaf, x.grad: of x's shape; nil before.

--- keep(x): Lets x outlive every scope, until nothing refers to it.
---@return Tensor x

--- item(x): The number in a tensor of one element. Raises when it has more.
---@return number

--- totable(x): Nested tables of the elements; a number for a tensor of no dimensions.
---@return table|number

--- tobytes(x): The elements as a string of bytes, row-major, in this machine's byte order.
---@return string

--- to(x, dtype): Converted to "f32", "u8" or "i32"; x itself when it has that dtype already.
---@param dtype string
---@return Tensor  of x's shape; integers are rounded to the nearest and clamped to their range

--- one_hot(labels, classes): A row for each label, 1 in the label's place and 0 elsewhere.
---@param labels Tensor  i32 N, 1-based
---@param classes integer
---@return Tensor  f32 N x classes
--- Raises when a label is outside of 1 .. classes.

--- eq(a, b): 1 where a equals b, else 0; elementwise with broadcasting, exact between all dtypes.
---@param a Tensor
---@param b Tensor|number
---@return Tensor  u8, of the broadcast shape

--- ne(a, b): 1 where a differs from b, else 0; elementwise with broadcasting.
---@return Tensor  u8

--- lt(a, b): 1 where a is less than b, else 0; elementwise with broadcasting.
---@return Tensor  u8

--- le(a, b): 1 where a is at most b, else 0; elementwise with broadcasting.
---@return Tensor  u8

--- gt(a, b): 1 where a is greater than b, else 0; elementwise with broadcasting.
---@return Tensor  u8

--- ge(a, b): 1 where a is at least b, else 0; elementwise with broadcasting.
---@return Tensor  u8

--- sign(x): -1, 0 or 1 for each element; it has no gradient.
---@return Tensor  of x's shape

--- floor(x): The nearest whole number at or below each element; it has no gradient.
---@return Tensor  of x's shape

--- ceil(x): The nearest whole number at or above each element; it has no gradient.
---@return Tensor  of x's shape

--- round(x): The nearest whole number to each element; it has no gradient.
---@return Tensor  of x's shape

--- isnan(x): 1 where an element is not a number (NaN), else 0.
---@return Tensor  u8, of x's shape

--- leave(scope, ...): Ends a scope; of what was made in it the tensors given here live on, in the scope around it.
---@return ...  what was given

--- close(scope): Ends a scope: what was made in it is given back, but what is kept.

return {
  { "Fields", "shape dtype grad" },
  { "Shape", "size dim numel strides reshape flatten squeeze unsqueeze transpose permute expand contiguous "
    .. "is_contiguous as_image" },
  { "Parts", "narrow select select_first index_select gather" },
  { "Joining", "tensor.cat tensor.stack" },
  { "Arithmetic, with broadcasting", "add sub mul div pow neg maximum minimum matmul" },
  { "Functions of each element", "abs exp log sqrt sin cos sign floor ceil round clamp isnan" },
  { "Activations", "relu leaky_relu prelu elu gelu silu sigmoid tanh softmax log_softmax" },
  { "Reductions", "sum mean var std max min argmax argmin cumsum" },
  { "Order", "sort topk" },
  { "Comparison", "eq ne lt le gt ge where" },
  { "In place", "add_ sub_ mul_ div_ pow_ maximum_ minimum_ copy_ fill_ zero_" },
  { "Gradients", "requires_grad backward zero_grad detach" },
  { "Copies and conversion", "clone to one_hot item totable tobytes" },
  { "Memory", "keep is_released" },
}
