--- files.lua: whole files and folders. Each returns nil and "path: what is wrong" where it fails.

--- look(path): What a path leads to.
---@param path string
---@return string|nil kind  "file", "directory" or "other"; nil where there is nothing
---@return integer|string size  in bytes; or what is wrong

--- read(path, offset, count): The bytes of a file as a string, or a part of them.
---@param path string
---@param offset integer|nil  where to begin, from 0 (default)
---@param count integer|nil   how many; to the end by default
---@return string|nil, string|nil  nil and a message where it fails

--- read_into(path, offset, t, format): Fills a tensor from a file's numbers, which lie there row-major.
---@param path string
---@param offset integer  where they begin, from 0
---@param t Tensor
---@param format string|nil  how they lie in the file where that is not as in t: "f8", "i2" ...
---@return Tensor|nil, string|nil  t; nil and a message where it fails or a number does not fit

--- write_atomic(path, bytes): Writes a file; the old one stays whole until the new one is complete.
---@param path string
---@param bytes string|Tensor|(string|Tensor)[]  tensors are written row-major, in this machine's byte order
---@return true|nil, string|nil  nil and a message where it fails

--- list(path): The names in a folder, sorted by their bytes, without hidden ones.
---@param path string
---@return string[]|nil names
---@return table<string, string>|string kinds  by name: "file", "directory", "link" (to nowhere), "other"; or what is wrong

--- mkdir(path): Makes a folder and those above it; none of them may be there already as a file.
---@param path string
---@return true|nil, string|nil  nil and a message where it fails

return require "feral.core.files"
