--- data: faces with labels, from folders, tables, or drawn. Each function loads when it is first used.
---
---     local set = assert(data.folder "faces")              -- faces/<class>/<image>
---     local train, test = set:split(0.8, { seed = 1 })
---     local loader = data.loader(train, { batch = 64, seed = 1 })
---     for x, y in loader:batches(1) do ... end
---
--- A set is an index over pixels, wherever those are: set:subset, split, kfold, balance, shuffle and concat give other sets over
--- the same pixels, and columns travel with the rows.
---
---     for i, fold in ipairs(set:kfold(10, { by = "subject" })) do ... fold.train ... fold.test ... end
---     local big = assert(data.folder("faces", { keep = "files" }))  -- read as needed; "cache": decoded once to a file
---     big:add_column("weight", weights); big:column "path"
---
--- data.set{images, labels, classes}   tensors of your own as a data set
--- data.synthetic{count}               drawn faces, still or moving
--- data.folder(dir)                    dir/<class>/<image>
--- data.fer2013(path)                  FER2013, as folders or as the original CSV
--- data.csv(path)                      a table of paths, labels, subjects, weights, boxes ...
--- data.sequences(dir)                 dir/<class>/<sequence>/<frame>
--- data.loader(set)                    batches
--- data.emotions                       names of emotions and how data sets spell them

return setmetatable({}, {
  __index = function(self, name)
    local found, module = pcall(require, "feral.data." .. name)
    if not found then
      if module:find("module 'feral.data." .. name .. "' not found", 1, true) then return nil end
      error(module, 0)
    end
    rawset(self, name, module)
    return module
  end,
})
