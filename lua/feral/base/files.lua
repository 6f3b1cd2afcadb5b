--- files.lua: whole files and folders. Each returns nil and "path: what is wrong" where it fails.
---
---     files.look(path)                  -> kind ("file", "directory", "other"), size; nil where there is nothing
---     files.read(path)                  -> the bytes as a string
---     files.write_atomic(path, bytes)   -> true; the old file stays whole until the new one is complete
---     files.list(path)                  -> names, kinds, sorted
---     files.mkdir(path)                 -> true; makes the folders above it too

return require "feral.core.files"
