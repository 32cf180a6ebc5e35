/** What `cni completion` prints for each shell: functions that ask `cni --complete` at every Tab. */

const bash = `# Completion of cni for bash, as "cni completion bash" prints it.
_cni() {
    local line value current prefix=''
    local -a words
    line="\${COMP_LINE:0:COMP_POINT}"
    IFS=$' \\t' read -r -a words <<<"$line"
    [[ $line == *[[:space:]] ]] && words+=('')
    current="\${words[-1]}"
    # readline takes what follows a "=" for a word of its own.
    [[ $current == --*=* && $COMP_WORDBREAKS == *=* ]] && prefix="\${current%%=*}="
    COMPREPLY=()
    while IFS= read -r line; do
        value="\${line%%$'\\t'*}"
        case $value in
            :files | :directories)
                compopt -o filenames
                [[ $value == :files ]] && value=-f || value=-d
                while IFS= read -r line; do COMPREPLY+=("$line"); done < <(compgen "$value" -- "\${current#"$prefix"}")
                ;;
            *) COMPREPLY+=("\${value#"$prefix"}") ;;
        esac
    done < <("$1" --complete "\${words[@]:1}" 2>/dev/null)
}
complete -F _cni cni
`;

const zsh = `#compdef cni
# Completion of cni for zsh, as "cni completion zsh" prints it.
_cni() {
    local line value
    local -a values
    for line in "\${(@f)$("\${words[1]}" --complete "\${(@Q)words[2,CURRENT-1]}" "\${(Q)PREFIX}" 2>/dev/null)}"; do
        case $line in
            '') ;;
            :files) compset -P 1 '--*='; _files ;;
            :directories) compset -P 1 '--*='; _files -/ ;;
            *)
                value="\${line%%$'\\t'*}"
                if [[ $line == *$'\\t'* ]]; then
                    values+=("\${value//:/\\\\:}:\${line#*$'\\t'}")
                else
                    values+=("\${value//:/\\\\:}")
                fi
                ;;
        esac
    done
    (( \${#values} )) && _describe -V cni values
}
if [[ \${funcstack[1]} == _cni ]]; then
    _cni "$@"
else
    compdef _cni cni
fi
`;

const fish = `# Completion of cni for fish, as "cni completion fish" prints it.
function __cni_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    test (count $current) -eq 0; and set current ''
    for line in ($words[1] --complete $words[2..-1] $current 2>/dev/null)
        switch $line
            case :files
                __fish_complete_path (string replace -r -- '^--[^=]+=' '' $current)
            case :directories
                __fish_complete_directories (string replace -r -- '^--[^=]+=' '' $current)
            case '*'
                echo $line
        end
    end
end
complete -c cni -f -a '(__cni_complete)'
`;

/** The scripts, by shell. */
export const scripts = { bash, zsh, fish } as const;
export type Shell = keyof typeof scripts;
