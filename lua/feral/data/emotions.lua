--- emotions: the library's names of emotions, their order, and the spellings under which data sets keep them.

local emotions = {}

--- The order of classes: emotions first, in this order; all other names after them, sorted.
emotions.names = { "anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral", "contempt" }

--- Usual spellings, in small letters: words, and the two letters that JAFFE and KDEF put into their files' names.
emotions.spellings = {
  anger = "anger", angry = "anger", an = "anger",
  disgust = "disgust", disgusted = "disgust", di = "disgust",
  fear = "fear", fearful = "fear", afraid = "fear", scared = "fear", fe = "fear", af = "fear",
  happiness = "happiness", happy = "happiness", joy = "happiness", smile = "happiness", ha = "happiness",
  sadness = "sadness", sad = "sadness", sa = "sadness",
  surprise = "surprise", surprised = "surprise", su = "surprise",
  neutral = "neutral", neutrality = "neutral", ne = "neutral",
  contempt = "contempt", contemptuous = "contempt",
}

--- The class that a data set's name stands for.
---@param name string
---@param map table<string, string>|nil  name -> class; default emotions.spellings. The exact name goes before small letters.
---@return string  the name itself where the map does not have it
function emotions.class_of(name, map)
  map = map or emotions.spellings
  return map[name] or map[name:lower()] or name
end

local rank = {}
for i, name in ipairs(emotions.names) do rank[name] = i end

--- Sorts names of classes in place: emotions in the library's order, then the others.
---@param names string[]
---@return string[] names
function emotions.sort(names)
  table.sort(names, function(a, b)
    local i, j = rank[a] or math.huge, rank[b] or math.huge
    if i ~= j then return i < j end
    return a < b
  end)
  return names
end

--- The names that occur in a list, each once, sorted as classes are, and the number of each.
---@param names string[]
---@return string[] classes
---@return table<string, integer> number
function emotions.classes_in(names)
  local classes, number = {}, {}
  for _, name in ipairs(names) do
    if not number[name] then
      number[name] = 0
      classes[#classes + 1] = name
    end
  end
  for i, name in ipairs(emotions.sort(classes)) do number[name] = i end
  return classes, number
end

return emotions
