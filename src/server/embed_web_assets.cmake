# Writes the files of FOLDER as web_assets() into OUT:
#   cmake -DFOLDER=... -DOUT=... -P embed_web_assets.cmake
set(types
  html "text/html; charset=utf-8"
  css "text/css; charset=utf-8"
  js "text/javascript; charset=utf-8"
  json "application/json"
  svg "image/svg+xml"
  png "image/png"
  ico "image/x-icon"
  webmanifest "application/manifest+json"
  woff2 "font/woff2")

set(arrays "")
set(rows "")
set(number 0)
file(GLOB_RECURSE files RELATIVE "${FOLDER}" "${FOLDER}/*")
list(SORT files)
foreach(file IN LISTS files)
  string(REGEX REPLACE ".*\\." "" suffix "${file}")
  list(FIND types "${suffix}" place)
  if(place EQUAL -1)
    message(FATAL_ERROR "${FOLDER}/${file}: no content type is known for '.${suffix}'")
  endif()
  math(EXPR place "${place} + 1")
  list(GET types ${place} type)
  file(READ "${FOLDER}/${file}" hex HEX)
  string(LENGTH "${hex}" length)
  math(EXPR length "${length} / 2")
  string(REGEX REPLACE "(..)" "'\\\\x\\1'," bytes "${hex}")
  file(SHA256 "${FOLDER}/${file}" hash)
  string(SUBSTRING "${hash}" 0 16 hash)
  set(path "/${file}")
  if(file STREQUAL "index.html")
    set(path "/")
  endif()
  string(APPEND arrays "constexpr char kFile${number}[] = {${bytes}'\\0'};\n")
  string(APPEND rows
    "    {\"${path}\", \"${type}\", {kFile${number}, ${length}}, \"\\\"${hash}\\\"\"},\n")
  math(EXPR number "${number} + 1")
endforeach()
file(WRITE "${OUT}" "#include \"server/web_assets.h\"

namespace atom {
namespace {
${arrays}
constexpr WebAsset kAssets[] = {
${rows}};
}  // namespace

std::span<const WebAsset> web_assets() { return kAssets; }

}  // namespace atom
")
