/** The real firewalld, with a system bus, in a host of its own. */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Host, Teardown } from './host.ts';
import { until } from './observe.ts';
import { cleanEnv } from './run.ts';

const bus = 'org.freedesktop.DBus /org/freedesktop/DBus org.freedesktop.DBus';

/**
 * Runs a system bus and firewalld in a host, and waits until it answers.
 * @returns a function that ends it.
 */
export async function firewalld(t: Teardown, host: Host): Promise<() => Promise<void>> {
  await host.run([
    'sh',
    '-c',
    'mkdir -p /run/dbus && mount -t tmpfs tmpfs /etc/firewalld && mkdir -p /etc/firewalld/zones /etc/firewalld/policies /etc/firewalld/services /etc/firewalld/icmptypes /etc/firewalld/ipsets /etc/firewalld/helpers',
  ]);
  const start = (...argv: string[]) => {
    const child = spawn(host.enter[0]!, [...host.enter.slice(1), ...argv], {
      env: cleanEnv,
      stdio: 'ignore',
    });
    t.teardown(() => void child.kill('SIGKILL'));
    return child;
  };
  start('dbus-daemon', '--system', '--nofork', '--nopidfile', '--nosyslog');
  const ready = (argv: string[], what: string) =>
    until(`${what} has started`, async () => (await host.tryRun(argv)).exit === 0);
  await ready(['test', '-S', '/run/dbus/system_bus_socket'], 'the bus');
  const daemon = start('firewalld', '--nofork', '--nopid');
  // Polling with busctl is cheaper than with firewall-cmd, which is written in Python.
  const name = 'org.fedoraproject.FirewallD1';
  await ready(['sh', '-c', `busctl --system call ${bus} NameHasOwner s ${name} | grep true`], 'firewalld');
  await ready(['firewall-cmd', '--state'], 'firewalld');
  return async () => {
    const ended = once(daemon, 'exit');
    daemon.kill('SIGKILL');
    await ended;
  };
}
