/** A host of their own for programs that try things out. It ends with them. */

import { spawnSync } from 'node:child_process';

/** Runs a program under the shell, which reaps processes whose parent was killed. */
const script = `set -e
  mkdir -p /var/lib/cni /etc/cni
  for directory in /run /var/lib/cni /etc/cni; do mount -t tmpfs -o mode=755 tmpfs $directory; done
  mount -t sysfs sysfs /sys
  mkdir /run/netns
  ip link set lo up
  "$@"`;

/**
 * Starts the running program again, with the same arguments, in network, mount and process namespaces of its
 * own, with empty /run, /var/lib/cni and /etc/cni. This process ends with the exit code of that one.
 * @param variables to be added to the environment, by which the program knows that it runs there.
 */
export function continueOnOwnHost(variables: Readonly<Record<string, string>>): never {
  const namespaces = ['--net', '--mount', '--pid', '--fork', '--kill-child', '--mount-proc'];
  const program = [process.execPath, '--no-warnings', ...process.argv.slice(1)];
  const { status } = spawnSync(
    // Everything is killed together with this process.
    'setpriv',
    ['--pdeathsig', 'KILL', 'unshare', ...namespaces, 'sh', '-c', script, 'sh', ...program],
    { stdio: 'inherit', env: { ...process.env, ...variables } },
  );
  process.exit(status ?? 1);
}
