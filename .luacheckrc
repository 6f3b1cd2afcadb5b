std = "lua54"
max_line_length = 130
self = false -- a method need not use it
-- guards for <close> are held, not read
ignore = { "211/_.*" }
files["tests"] = { globals = {} }
