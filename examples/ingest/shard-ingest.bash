# bash completion for shard-ingest
_shard_ingest() {
  local current=$2 previous=$3
  # ":" and "=" break words; what stands before a ":" belongs to the sink.
  if declare -F _get_comp_words_by_ref >/dev/null; then
    local cur prev
    _get_comp_words_by_ref -n : cur prev
    current=$cur previous=$prev
  fi
  # "--to=sq" comes as three words.
  [[ $previous != = ]] || previous=${COMP_WORDS[COMP_CWORD - 2]}
  [[ $current != = ]] || { previous=${COMP_WORDS[COMP_CWORD - 1]} current=; }
  case $previous in
    -t | --to)
      if [[ $current == sqlite:* || $current == jsonl:* ]]; then
        local scheme=${current%%:*}:
        mapfile -t COMPREPLY < <(compgen -P "$scheme" -f -- "${current#"$scheme"}")
      else
        compopt -o nospace
        mapfile -t COMPREPLY < <(compgen -W 'sqlite: jsonl: stdout: null:' -- "$current")
      fi
      declare -F __ltrim_colon_completions >/dev/null && __ltrim_colon_completions "$current"
      return
      ;;
    --validate) mapfile -t COMPREPLY < <(compgen -W 'none json' -- "$current"); return ;;
    --synchronous) mapfile -t COMPREPLY < <(compgen -W 'off normal full' -- "$current"); return ;;
    --existing) mapfile -t COMPREPLY < <(compgen -W 'fail append replace' -- "$current"); return ;;
    --sync) mapfile -t COMPREPLY < <(compgen -W 'never on_close interval batch' -- "$current"); return ;;
    -j | --threads | -s | --shards | -w | --workers | -k | --key | --max-record | --retry-for | --deadline | \
      --table | --rotate-size | --rotate-every | --level) return ;;
  esac
  if [[ $current == -* ]]; then
    mapfile -t COMPREPLY < <(compgen -W '
      --to --threads --follow --split --max-record --validate --rejects --key --shards --workers --retry-for
      --deadline --table --synchronous --existing --rotate-size --rotate-every --sync --level --config
      --print-config --report --quiet --help --version' -- "$current")
  else
    compopt -o filenames
    mapfile -t COMPREPLY < <(compgen -f -- "$current")
  fi
}
complete -F _shard_ingest shard-ingest
