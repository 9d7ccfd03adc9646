# Odd names of files and folders, sourced by scripts.

unset CDPATH   # with it, cd may go elsewhere, and prints where

# dashes NAME…   lets the path in each of these variables begin with ./ where it begins with a dash, as options do
dashes() {
    local name
    for name in "$@"; do
        if [[ ${!name-} == -* ]]; then printf -v "$name" './%s' "${!name}"; fi
    done
}

# plain NAME   the name without what has a meaning where it is used: = : | $ and line breaks. fairseq splits paths at colons.
plain() { printf '%s' "${1//[=:|$'\n'\$]/_}"; }
