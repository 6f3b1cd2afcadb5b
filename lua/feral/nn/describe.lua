--- describe.lua: what a network is made of, as plain data, and networks made of that: what a model file holds besides numbers.
---
--- A layer is {kind, arguments}: what its constructor was given, with layers among the arguments described in their places, as
--- they are now. Only where a layer is no longer what its constructor makes of that there is more:
---   children  {{name, layer} ...}, layers that were put in the place of others, or added
---   fields    {name = value}, settings that were changed (layer.slope = 0.3)
--- The outermost description also holds
---   shared    {{path, path} ...}, layers and parameters that stand in two places: the first is the same as the second

local core = require "feral.core.tensor"
local errors = require "feral.base.errors"

local describe = {}

--- What every layer has, and a file says otherwise or not at all.
local own_fields = {
  kind = true, name = true, training = true, frozen = true, arguments = true, made = true, parameter_names = true,
  buffer_names = true, child_names = true,
}

local function is_layer(value) return type(value) == "table" and rawget(value, "child_names") ~= nil end

local function is_plain(value)
  local kind = type(value)
  return kind == "number" or kind == "string" or kind == "boolean"
end

--- A copy of what a constructor was given: tables are copied, all else (layers, tensors, objects) is the same.
function describe.copy(value, seen)
  if type(value) ~= "table" or is_layer(value) or getmetatable(value) then return value end
  seen = seen or {}
  if seen[value] then return seen[value] end
  local copy = {}
  seen[value] = copy
  for key, v in pairs(value) do copy[key] = describe.copy(v, seen) end
  return copy
end

--- True when a table holds numbers, strings, booleans and such tables alone.
local function is_plain_table(value, depth)
  if type(value) ~= "table" or getmetatable(value) or is_layer(value) or depth > 8 then return false end
  for key, v in pairs(value) do
    if not is_plain(key) or not (is_plain(v) or is_plain_table(v, depth + 1)) then return false end
  end
  return true
end

local function is_setting(value) return is_plain(value) or is_plain_table(value, 1) end

local function same(a, b)
  if type(a) ~= "table" or type(b) ~= "table" then return rawequal(a, b) end
  for key, v in pairs(a) do
    if not same(v, b[key]) then return false end
  end
  for key in pairs(b) do
    if a[key] == nil then return false end
  end
  return true
end

--- Sizes of a layer's parameters and buffers by name.
local function tensors_of(layer)
  local sizes = {}
  for _, list in ipairs { layer.parameter_names, layer.buffer_names } do
    for _, name in ipairs(list) do
      local t = rawget(layer, name)
      sizes[name] = core.is_tensor(t) and table.concat(t.shape, "x") or "nothing"
    end
  end
  return sizes
end

--- What a constructor has made: to be compared with when the layer is described.
---@param layer Module
---@return table  {children, settings, tensors} by name
function describe.as_made(layer)
  local children, settings = {}, {}
  for _, name in ipairs(layer.child_names) do children[name] = rawget(layer, name) end
  for key, value in pairs(layer) do
    if type(key) == "string" and not own_fields[key] and is_setting(value) then settings[key] = describe.copy(value) end
  end
  return { children = children, settings = settings, tensors = tensors_of(layer) }
end

-- ---- from layers to data ----

--- "layer 2.main, a Lambda", or "a Lambda" for the outermost.
local function title(layer, path)
  return (path == "" and "" or ("layer %s, "):format(path)) .. "a " .. layer.kind
end

local function refuse(layer, path, reason)
  errors.raise("%s %s and so cannot be written to a file; make a class of it with nn.class", title(layer, path), reason)
end

local function child_path(path, name) return path == "" and name or path .. "." .. name end

--- Raises where no constructor makes what the layer is now.
local function check_layer(nn, layer, path)
  if nn.find_class(layer.kind) ~= getmetatable(layer) then
    errors.raise("%s is of a class that was forgotten, or made again, since: make the layer again", title(layer, path))
  end
  if rawget(layer, "forward") then refuse(layer, path, "has a forward of its own") end
  local now, made = tensors_of(layer), layer.made.tensors
  local names = {}
  for name in pairs(now) do names[#names + 1] = name end
  table.sort(names)
  for _, name in ipairs(names) do
    if now[name] ~= made[name] then
      refuse(layer, path, ("has a '%s' of %s where its class makes %s"):format(name, now[name], made[name] or "none"))
    end
  end
end

local describe_layer

--- Says for each layer among the arguments which layer stands in its place now, and where: the first argument that is some
--- layer went to the first child that was made of it, the second to the second.
local function taker(layer, path, taken)
  return function(argument)
    for _, name in ipairs(layer.child_names) do
      if not taken[name] and layer.made.children[name] == argument then
        taken[name] = true
        return rawget(layer, name), child_path(path, name)
      end
    end
    return argument, path
  end
end

local function sorted_keys(t)
  local keys = {}
  for key in pairs(t) do keys[#keys + 1] = key end
  table.sort(keys, function(a, b)
    if type(a) == type(b) and type(a) ~= "boolean" then return a < b end
    return type(a) < type(b)
  end)
  return keys
end

local function describe_value(nn, value, owner, path, take)
  if is_layer(value) then return describe_layer(nn, take(value)) end
  if type(value) == "table" then
    if value.kind then refuse(owner, path, "was given a table with a field 'kind'") end
    local copy = {}
    for _, key in ipairs(sorted_keys(value)) do copy[key] = describe_value(nn, value[key], owner, path, take) end
    return copy
  elseif value ~= nil and not is_plain(value) then
    refuse(owner, path, "holds a " .. type(value))
  end
  return value
end

--- A layer's arguments as a list; where there is a nil among them, by their places, since a list in a file has no holes.
local function describe_arguments(nn, layer, path, take)
  local arguments, list, full = layer.arguments, {}, true
  for i = 1, arguments.n do
    list[i] = describe_value(nn, arguments[i], layer, path, take)
    full = full and (arguments[i] ~= nil or i == arguments.n)
  end
  if full then return list end
  local by_place = { count = arguments.n }
  for i = 1, arguments.n do by_place[tostring(i)] = list[i] end
  return by_place
end

--- True when the constructor alone does not make the layers that are inside now.
local function has_changed(layer)
  for _, name in ipairs(layer.child_names) do
    local child = rawget(layer, name)
    if child ~= layer.made.children[name] or has_changed(child) then return true end
  end
  local settings = describe.as_made(layer).settings
  return rawget(layer, "forward") ~= nil or not same(settings, layer.made.settings) or
    not same(tensors_of(layer), layer.made.tensors)
end

--- Layers that are not among the arguments and not as the constructor makes them; nil where there are none.
local function describe_children(nn, layer, path, taken)
  local list = {}
  for _, name in ipairs(layer.child_names) do
    local child = rawget(layer, name)
    if not taken[name] and (child ~= layer.made.children[name] or has_changed(child)) then
      list[#list + 1] = { name = name, layer = describe_layer(nn, child, child_path(path, name)) }
    end
  end
  return list[1] and list
end

--- Settings that are not as the constructor makes them: those it made, and numbers, strings and booleans that came later.
local function describe_fields(layer, path)
  local made, changed = layer.made.settings, {}
  for _, name in ipairs(sorted_keys(made)) do
    local value = rawget(layer, name)
    if value ~= nil and not is_setting(value) then refuse(layer, path, ("has a %s as its '%s'"):format(type(value), name)) end
    if value == nil then refuse(layer, path, ("has no '%s' any more"):format(name)) end
    if not same(value, made[name]) then changed[name] = describe.copy(value) end
  end
  for name, value in pairs(layer) do
    if type(name) == "string" and not own_fields[name] and made[name] == nil and is_plain(value) then changed[name] = value end
  end
  return next(changed) and changed
end

function describe_layer(nn, layer, path)
  check_layer(nn, layer, path)
  local taken = {}
  local arguments = describe_arguments(nn, layer, path, taker(layer, path, taken))
  return {
    kind = layer.kind, arguments = arguments, children = describe_children(nn, layer, path, taken),
    fields = describe_fields(layer, path),
  }
end

--- Layers and parameters in two places, as {path, first path}; nil where there are none.
local function find_shared(net)
  local list, places = {}, {}
  local function see(thing, path)
    local first = places[thing]
    if first then list[#list + 1] = { path, first } else places[thing] = path end
    return first
  end
  local function visit(layer, path)
    if see(layer, path) then return end
    for _, name in ipairs(layer.parameter_names) do
      local t = rawget(layer, name)
      if t then see(t, child_path(path, name)) end
    end
    for _, name in ipairs(layer.child_names) do visit(rawget(layer, name), child_path(path, name)) end
  end
  visit(net, "")
  return list[1] and list
end

--- See nn.describe.
function describe.describe(nn, net)
  if not is_layer(net) then errors.raise("describe: a network expected, got %s", type(net)) end
  net:walk(function() end) -- raises where no layer stands any more
  local description = describe_layer(nn, net, "")
  description.shared = find_shared(net)
  return description
end

-- ---- from data to layers ----

local build_layer

--- A table with every value built; nil, message where that fails.
local function build_all(nn, values)
  local copy = {}
  for key, v in pairs(values) do
    local built, message = v, nil
    if type(v) == "table" and v.kind ~= nil then
      built, message = build_layer(nn, v)
    elseif type(v) == "table" then
      built, message = build_all(nn, v)
    end
    if message then return nil, message end
    copy[key] = built
  end
  return copy
end

--- Calls the class with what was built for its arguments.
local function construct(nn, description)
  local kind = description.kind
  local class = type(kind) == "string" and nn.find_class(kind)
  if not class then
    return nil, ("layer '%s' is unknown%s; if it is your own, make its class (nn.class) before loading"):format(tostring(kind),
      errors.hint(kind, nn.kinds()))
  end
  local arguments = description.arguments or {}
  if type(arguments) ~= "table" then return nil, ("layer %s: its arguments are no list"):format(kind) end
  local built, message = build_all(nn, arguments)
  if not built then return nil, message end
  local list, count = built, #built
  if math.type(built.count) == "integer" then -- by their places
    list, count = {}, math.min(built.count, 100)
    for i = 1, count do list[i] = built[tostring(i)] end
  end
  local made, layer = errors.attempt(class, table.unpack(list, 1, count))
  if not made then return nil, ("layer %s: %s"):format(kind, layer) end
  return layer
end

--- Puts a layer in the place of the one that the constructor made, or behind the others.
local function set_child(layer, name, child)
  if layer.made.children[name] then layer:replace(name, child) else layer:add_child(name, child) end
end

local function set_children(nn, layer, children)
  for _, entry in ipairs(children) do
    if type(entry) ~= "table" or type(entry.layer) ~= "table" then return nil, "its list of children is damaged" end
    local child, message = build_layer(nn, entry.layer)
    if not child then return nil, message end
    local fits, problem = errors.attempt(set_child, layer, entry.name, child)
    if not fits then return nil, problem end
  end
  return true
end

local function set_fields(layer, fields)
  for name, value in pairs(fields) do
    local before = layer[name]
    if type(name) ~= "string" or own_fields[name] or not is_setting(value) or before ~= nil and not is_setting(before) then
      return nil, ("'%s' is no setting of it"):format(tostring(name))
    end
    rawset(layer, name, value)
  end
  return true
end

--- What the description says besides the constructor's arguments.
local function finish(nn, layer, description)
  for _, part in ipairs { "children", "fields" } do
    local given = description[part]
    if given ~= nil and type(given) ~= "table" then return nil, ("its %s are damaged"):format(part) end
  end
  if description.children then
    local done, message = set_children(nn, layer, description.children)
    if not done then return nil, message end
  end
  local fields, message = build_all(nn, description.fields or {})
  if not fields then return nil, message end
  return set_fields(layer, fields)
end

function build_layer(nn, description)
  local layer, message = construct(nn, description)
  if not layer then return nil, message end
  local done, problem = finish(nn, layer, description)
  if not done then return nil, ("layer %s: %s"):format(layer.kind, problem) end
  return layer
end

--- The layer of a path, and the last name in it where that is no layer's.
local function find(net, path)
  local at = net
  for name in path:gmatch("[^.]+") do
    local inside = is_layer(at) and rawget(at, name)
    if not inside then errors.raise("there is no '%s' in it", path) end
    if not is_layer(inside) then return at, name end
    at = inside
  end
  return at
end

--- Makes one thing of the two that are the same.
local function share(net, path, first)
  local owner, name = find(net, first)
  if not name then return net:replace(path, owner) end
  local sharer, other = find(net, path)
  local t, before = rawget(owner, name), other and rawget(sharer, other)
  if not core.is_tensor(t) or not core.is_tensor(before) or table.concat(t.shape, "x") ~= table.concat(before.shape, "x") then
    errors.raise("'%s' and '%s' cannot be the same", path, first)
  end
  rawset(sharer, other, t)
end

local function share_all(net, shared)
  if type(shared) ~= "table" then return nil, "its list of what is shared is damaged" end
  for _, pair in ipairs(shared) do
    if type(pair) ~= "table" or type(pair[1]) ~= "string" or type(pair[2]) ~= "string" then
      return nil, "its list of what is shared is damaged"
    end
    local fits, message = errors.attempt(share, net, pair[1], pair[2])
    if not fits then return nil, message end
  end
  return net
end

--- See nn.build.
function describe.build(nn, description)
  if type(description) ~= "table" or description.kind == nil then return nil, "its architecture is damaged" end
  local net, message = build_layer(nn, description)
  if not net then return nil, message end
  if description.shared == nil then return net end
  return share_all(net, description.shared)
end

return describe
