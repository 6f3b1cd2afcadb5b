--- pictures.lua: image files made by hand, of the kinds that feral reads but does not write.

local pictures = {}

---- PNG ----

local function crc32(bytes)
  local crc = 0xFFFFFFFF
  for i = 1, #bytes do
    crc = crc ~ bytes:byte(i)
    for _ = 1, 8 do crc = crc >> 1 ~ (crc & 1 == 1 and 0xEDB88320 or 0) end
  end
  return crc ~ 0xFFFFFFFF
end

local function adler32(bytes)
  local a, b = 1, 0
  for i = 1, #bytes do
    a = (a + bytes:byte(i)) % 65521
    b = (b + a) % 65521
  end
  return b << 16 | a
end

function pictures.chunk(kind, data)
  return string.pack(">I4", #data) .. kind .. data .. string.pack(">I4", crc32(kind .. data))
end

--- The zlib format without any compression.
local function stored(bytes)
  local parts = { "\x78\x01" }
  for first = 1, #bytes, 60000 do
    local piece = bytes:sub(first, first + 59999)
    parts[#parts + 1] = string.pack("<BI2I2", first + 60000 > #bytes and 1 or 0, #piece, ~#piece & 0xFFFF) .. piece
  end
  return table.concat(parts) .. string.pack(">I4", adler32(bytes))
end

--- A PNG of any kind; 'rows' are the bytes of its rows, without filters.
---@param options {width: integer, height: integer, depth: integer, type: integer, interlaced: boolean, before: string}
function pictures.png(rows, options)
  local lines = {}
  for i, row in ipairs(rows) do lines[i] = "\0" .. row end
  local header = string.pack(">I4I4BBBBB", options.width, options.height or #rows, options.depth or 8, options.type or 0, 0, 0,
    options.interlaced and 1 or 0)
  return "\x89PNG\r\n\x1a\n" .. pictures.chunk("IHDR", header) .. (options.before or "") ..
    pictures.chunk("IDAT", stored(table.concat(lines))) .. pictures.chunk("IEND", "")
end

---- BMP ----

--- A BMP; 'rows' from the top, each as it stands in the file, without padding.
function pictures.bmp(rows, options)
  local palette, body = options.palette or "", {}
  for i = 1, #rows do
    local row = rows[#rows + 1 - i]
    body[i] = row .. ("\0"):rep(-#row % 4)
  end
  local pixels = table.concat(body)
  local start = 14 + 40 + #palette
  return "BM" .. string.pack("<I4I4I4", start + #pixels, 0, start) ..
    string.pack("<I4i4i4I2I2I4I4i4i4I4I4", 40, options.width, options.height or #rows, 1, options.bits, options.compression or 0,
      #pixels, 0, 0, 0, 0) .. palette .. pixels
end

---- JPEG ----

--- A JPEG with an EXIF segment that says how the camera was held.
---@param jpeg string
---@param orientation integer
---@param big boolean  the byte order
function pictures.with_orientation(jpeg, orientation, big)
  local order = big and ">" or "<"
  local entry = string.pack(order .. "I2I2I4I2I2", 0x0112, 3, 1, orientation, 0)
  local other = string.pack(order .. "I2I2I4I4", 0x0100, 4, 1, 77)
  local tiff = (big and "MM" or "II") .. string.pack(order .. "I2I4I2", 42, 8, 2) .. other .. entry .. string.pack("I4", 0)
  return pictures.with_exif(jpeg, tiff)
end

function pictures.with_exif(jpeg, tiff)
  local segment = "Exif\0\0" .. tiff
  return jpeg:sub(1, 2) .. "\xFF\xE1" .. string.pack(">I2", #segment + 2) .. segment .. jpeg:sub(3)
end

local function from_hex(text)
  return (text:gsub("%s", ""):gsub("..", function(byte) return string.char(tonumber(byte, 16)) end))
end

--- 8 x 8, four inks as Adobe stores them: cyan's reverse, red, over a lower half with half of black's.
pictures.cmyk_jpeg = from_hex [[
ffd8ffee000e41646f626500640000000002ffdb0043000201010101010201010102020202020403020202020504040304060506060605060606
070908060709070606080b08090a0a0a0a0a06080b0c0b0a0c090a0a0affdb004301020202020202050303050a0706070a0a0a0a0a0a0a0a0a0a
0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0affc000140800080008040111000211010311
01041100ffc4001f0000010501010101010100000000000000000102030405060708090a0bffc400b5100002010303020403050504040000017d
01020300041105122131410613516107227114328191a1082342b1c11552d1f02433627282090a161718191a25262728292a3435363738393a43
4445464748494a535455565758595a636465666768696a737475767778797a838485868788898a92939495969798999aa2a3a4a5a6a7a8a9aab2
b3b4b5b6b7b8b9bac2c3c4c5c6c7c8c9cad2d3d4d5d6d7d8d9dae1e2e3e4e5e6e7e8e9eaf1f2f3f4f5f6f7f8f9faffc4001f0100030101010101
010101010000000000000102030405060708090a0bffc400b5110002010204040304070504040001027700010203110405213106124151076171
1322328108144291a1b1c109233352f0156272d10a162434e125f11718191a262728292a35363738393a434445464748494a535455565758595a
636465666768696a737475767778797a82838485868788898a92939495969798999aa2a3a4a5a6a7a8a9aab2b3b4b5b6b7b8b9bac2c3c4c5c6c7
c8c9cad2d3d4d5d6d7d8d9dae2e3e4e5e6e7e8e9eaf2f3f4f5f6f7f8f9faffda000e040100021103110400003f00f8bebf94cff7f0fbfbfe1fa1
ff0056adff0097afff007157ffd9]]

--- 8 x 8, gray, progressive: the ramp 0, 4, 8 ... 252.
pictures.progressive_jpeg = from_hex [[
ffd8ffe000104a46494600010100000100010000ffdb004300020101010101020101010202020202040302020202050404030406050606060506
0606070908060709070606080b08090a0a0a0a0a06080b0c0b0a0c090a0a0affc2000b080008000801011100ffc4001400010000000000000000
0000000000000003ffda00080101000000013fffc400161000030000000000000000000000000000000508ffda00080101000105025b361fffc4
001610000300000000000000000000000000000035a2ffda0008010100063f025f27ffc4001510010100000000000000000000000000000031ff
da0008010100013f2190ffda00080101000000107fffc4001710000301000000000000000000000000000021a1f0ffda0008010100013f1085a8
ffd9]]

return pictures
