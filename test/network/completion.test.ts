/**
 * `cni completion`, in the shells themselves: what each offers at Tab on a host with networks and pods.
 * Runs once: no agent takes part.
 */

import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { sample } from '../support/chain.ts';
import { cni, here } from '../support/command.ts';
import { type Host, makeHost, type Teardown } from '../support/host.ts';
import { suites } from '../support/plugin.ts';

/** A host with a network, a pod on it and a network that only the result cache has. */
async function makeNode(t: Teardown): Promise<Host> {
  const host = await makeHost(t);
  writeFileSync(host.file('/etc/cni/net.d/10-x.conflist'), JSON.stringify(sample('10-bridge.conflist')));
  writeFileSync(host.file('/etc/cni/net.d/20-broken.conflist'), '{');
  await host.run(['ip', 'netns', 'add', 'web']);
  const results = host.file('/var/lib/cni/results');
  mkdirSync(results);
  const entry = {
    kind: 'cniCacheV1',
    containerId: '0123456789abcdef0123456789abcdef',
    ifName: 'eth0',
    networkName: 'oldnet',
    cniArgs: [
      ['K8S_POD_NAMESPACE', 'default'],
      ['K8S_POD_NAME', 'web-1'],
    ],
  };
  writeFileSync(join(results, `oldnet-${entry.containerId}-eth0`), JSON.stringify(entry));
  writeFileSync(join(results, 'half-written'), '{"kind"');
  await host.run(['mkdir', '-p', '/run/work/sub-directory']);
  writeFileSync(host.file('/run/work/sub-file.conflist'), '');
  return host;
}

type Ask = (host: Host, line: string) => Promise<string[]>;
const path = `PATH=${suites.ours}:/usr/sbin:/usr/bin:/sbin:/bin`;

const shells: Record<string, Ask> = {
  bash: async (host, line) => {
    const script = `cd /run/work; eval "$(cni completion bash)"
      COMP_LINE=$1 COMP_POINT=\${#1}
      read -r -a COMP_WORDS <<<"$1"; [[ $1 == *' ' ]] && COMP_WORDS+=('')
      COMP_CWORD=$((\${#COMP_WORDS[@]} - 1))
      compopt() { :; }
      _cni cni; printf '%s\\n' "\${COMPREPLY[@]}"`;
    return lines(await host.run(['env', path, 'bash', '-c', script, 'bash', line]));
  },
  fish: async (host, line) => {
    const script = `cd /run/work; cni completion fish | source; complete --do-complete $argv[1]`;
    return lines(await host.run(['env', path, 'HOME=/run/work', 'fish', '--no-config', '-c', script, line]));
  },
  zsh: async (host, line) => {
    // A terminal of its own, in which Tab lists what there is; compadd tells what it is given. ^U is for zsh alone,
    // even when it comes while zsh does not read.
    const script = `cd /run/work; zmodload zsh/zpty
      zpty z zsh -f -i; zpty -w z 'stty kill undef; PS1=; unsetopt zle_bracketed_paste; autoload -Uz compinit; compinit -u -D; eval "$(cni completion zsh)"'
      zpty -w z 'compadd() { [[ " $* " == *" -O "* || " $* " == *" -A "* || " $* " == *" -D "* ]] && { builtin compadd "$@"; return }; local -a __hits; builtin compadd -O __hits "$@"; print -r -l -- "HIT:"$^__hits; builtin compadd "$@" }'
      zpty -w z 'bindkey "^I" complete-word; zle -C complete-word complete-word _main_complete; print READ""Y'
      zpty -r z text '*READY*'; zpty -n -w z "$1"$'\\t'
      sleep 0; zpty -n -w z $'\\x15'; zpty -w z 'print DO""NE'; zpty -r z text '*DONE*'; print -r -- "$text"`;
    const output = await host.run(['env', path, 'TERM=dumb', 'zsh', '-f', '-c', script, 'zsh', line]);
    return [...output.matchAll(/HIT:([^\r\n]+)/g)].map(([, hit]) => hit!.trim());
  },
};

const lines = (text: string) =>
  text
    .split('\n')
    .filter((one) => one !== '')
    .map((one) => one.split('\t')[0]!);

for (const [shell, ask] of Object.entries(shells))
  test(`${shell} completes commands, options, networks, namespaces and files`, async (t) => {
    const host = await makeNode(t);
    const offers = async (line: string) => [...new Set(await ask(host, line))].sort();
    t.deepEqual(await offers('cni com'), ['completion']);
    t.true((await offers('cni ')).includes('validate'));
    t.deepEqual(await offers('cni agent st'), ['status']);
    t.deepEqual(await offers('cni gc --dr'), ['--dry-run']);
    t.deepEqual(await offers('cni completion z'), ['zsh']);
    t.deepEqual(await offers('cni gc '), ['oldnet', 'podnet']);
    t.deepEqual(await offers('cni add --trace podn'), ['podnet']);
    t.deepEqual(await offers('cni add podnet /run/n'), ['/run/netns/web']);
    t.deepEqual((await offers('cni validate --format ')).sort(), ['github', 'json', 'sarif', 'text']);
    t.regex((await offers('cni validate --format=sa')).join(), /sarif$/);
    const files = await offers('cni validate sub-');
    t.deepEqual(
      files.map((file) => file.replace(/\/$/, '')),
      ['sub-directory', 'sub-file.conflist'],
    );
    const directories = await offers('cni install --bin-dir sub-');
    t.deepEqual(
      directories.map((file) => file.replace(/\/$/, '')),
      ['sub-directory'],
    );
  });

test('completion prints the script of the shell in use, and says which it has', async (t) => {
  const of = (shell: string) =>
    here.tryRun([join(suites.ours, 'cni'), 'completion'], { env: { SHELL: shell } });
  for (const shell of ['bash', 'zsh', 'fish'])
    t.is((await of(`/usr/bin/${shell}`)).stdout, (await cni('completion', shell)).stdout);
  const other = await of('/bin/tcsh');
  t.is(other.exit, 2);
  t.regex(other.stderr, /\$SHELL is "\/bin\/tcsh".*bash, zsh, fish/);
  t.is((await cni('completion', 'tcsh')).exit, 2);
});

test('what cannot be read is not offered, and nothing is said of it', async (t) => {
  const { exit, stdout, stderr } = await here.tryRun(
    ['setpriv', '--reuid', '65534', '--clear-groups', join(suites.ours, 'cni'), '--complete', 'gc', ''],
    { env: { NETCONFPATH: '/proc/nowhere' } },
  );
  t.deepEqual([exit, stdout, stderr], [0, '', '']);
});
