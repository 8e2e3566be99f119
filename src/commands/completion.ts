/** `media-service completion`: scripts by which bash, zsh and fish complete commands and options. Made from the commands themselves. */

export const SHELLS = ['bash', 'zsh', 'fish'] as const;
export type Shell = (typeof SHELLS)[number];

/** A command as the library of the command line describes it. */
interface Described {
  name(): string;
  description(): string;
  readonly options: readonly {
    readonly long?: string | undefined;
    readonly short?: string | undefined;
    readonly description: string;
    readonly argChoices?: readonly string[] | undefined;
  }[];
  readonly registeredArguments: readonly {
    readonly description: string;
    readonly argChoices?: readonly string[] | undefined;
  }[];
}

interface Completed {
  readonly name: string;
  readonly about: string;
  /** Options, and the words that an argument can be. */
  readonly words: readonly { readonly text: string; readonly about: string }[];
}

export function completionFor(shell: Shell, program: { readonly commands: readonly Described[] }): string {
  const commands = program.commands.map(completed);
  switch (shell) {
    case 'bash':
      return bash(commands);
    case 'zsh':
      return zsh(commands);
    case 'fish':
      return fish(commands);
  }
}

function completed(command: Described): Completed {
  const options = command.options.flatMap((option) => [
    { text: option.long ?? option.short ?? '', about: option.description },
    ...(option.argChoices ?? []).map((text) => ({ text, about: option.description })),
  ]);
  const words = command.registeredArguments.flatMap(({ argChoices = [], description }) =>
    argChoices.map((text) => ({ text, about: description })),
  );
  return {
    name: command.name(),
    about: command.description(),
    words: [...words, ...options, { text: '--help', about: 'help' }],
  };
}

function bash(commands: readonly Completed[]): string {
  const names = commands.map(({ name }) => name).join(' ');
  const cases = commands.map(({ name, words }) => `    ${name}) words="${words.map(({ text }) => text).join(' ')}" ;;`);
  return `# media-service completion bash > /etc/bash_completion.d/media-service
_media_service() {
  local here="\${COMP_WORDS[COMP_CWORD]}" words
  COMPREPLY=()
  case "\${COMP_WORDS[COMP_CWORD-1]}" in
    -c|--config) mapfile -t COMPREPLY < <(compgen -f -- "$here"); return ;;
  esac
  if [ "$COMP_CWORD" -eq 1 ]; then words="${names} --help --version"; else
  case "\${COMP_WORDS[1]}" in
${cases.join('\n')}
    *) words="" ;;
  esac; fi
  mapfile -t COMPREPLY < <(compgen -W "$words" -- "$here")
}
complete -F _media_service media-service
`;
}

function zsh(commands: readonly Completed[]): string {
  const described = (text: string, about: string): string => `'${text}:${plain(about)}'`;
  const names = commands.map(({ name, about }) => described(name, about)).join(' ');
  const cases = commands.map(
    ({ name, words }) => `    ${name}) words=(${words.map(({ text, about }) => described(text, about)).join(' ')}) ;;`,
  );
  return `#compdef media-service
# media-service completion zsh > "\${fpath[1]}/_media-service"
_media_service() {
  local -a words_here words
  if (( CURRENT == 2 )); then
    words=(${names})
    _describe command words
    return
  fi
  local command="\${(Q)\${(z)BUFFER}[2]}"
  case "$command" in
${cases.join('\n')}
  esac
  _describe option words || _files
}
compdef _media_service media-service
`;
}

function fish(commands: readonly Completed[]): string {
  const lines = commands.flatMap(({ name, about, words }) => [
    `complete -c media-service -n __fish_use_subcommand -f -a ${name} -d '${plain(about)}'`,
    ...words.map(({ text, about: meaning }) => {
      const what = text.startsWith('--') ? `-l ${text.slice(2)}` : `-a ${text}`;
      return `complete -c media-service -n '__fish_seen_subcommand_from ${name}' ${what} -d '${plain(meaning)}'`;
    }),
  ]);
  return `# media-service completion fish > ~/.config/fish/completions/media-service.fish\n${lines.join('\n')}\n`;
}

/** Without what ends a quoted text or a description in any of the shells. */
function plain(about: string): string {
  return about.replace(/['\\:[\]`$"]/g, ' ').replace(/ +/g, ' ');
}
