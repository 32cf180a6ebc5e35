/** Whether the kernel forwards what pods send, and what is sent to them. */

import { readdirSync } from 'node:fs';
import { readRegularFile } from '../../lib/file.ts';
import type { Family } from '../../lib/ip.ts';
import { readSysctl, writeSysctl } from '../../lib/kernel/sysctl.ts';
import { hasFamily, ingressOf, isRouted } from '../inventory/running.ts';
import type { Check, Finding } from './check.ts';
import type { Context } from './context.ts';

const settings: Readonly<Record<Family, readonly string[]>> = {
  4: ['ipv4', 'ip_forward'],
  6: ['ipv6', 'conf', 'all', 'forwarding'],
};

export const forwarding: Check = {
  id: 'forwarding',
  title: 'Forwarding',
  run(context) {
    const families = ([4, 6] as const).filter((family) =>
      context.running.some((one) => isRouted(one) && hasFamily(one, family)),
    );
    const findings = families.flatMap((family) => findingsOf(family, context));
    const seen =
      families.length === 0
        ? 'no pod needs the host to forward'
        : `the host forwards ${families.map((family) => `IPv${family}`).join(' and ')}`;
    return { findings, seen };
  },
};

function findingsOf(family: Family, context: Context): Finding[] {
  if (readSysctl(settings[family]) !== '1')
    return [
      disabled(
        settings[family],
        `The host does not forward IPv${family}, so that pods reach only what is on their own link`,
      ),
    ];
  // In IPv6, an interface's own setting only decides whether the host behaves as a router there.
  if (family === 6) return [];
  const routed = context.running.filter((one) => isRouted(one) && hasFamily(one, family));
  const ingress = routed.flatMap((one) => ingressOf(one, context.inventory.links) ?? []);
  const names = new Set([...ingress, ...(context.uplinks.get(4) ?? [])].map(({ name }) => name));
  return [...names]
    .map((name) => ['ipv4', 'conf', name, 'forwarding'])
    .filter((path) => readSysctl(path) === '0')
    .map((path) => disabled(path, `What comes in by interface "${path[2]}" is not forwarded`));
}

function disabled(path: readonly string[], message: string): Finding {
  const name = `net/${path.join('/')}`;
  const files = filesSetting(name);
  return {
    severity: 'error',
    subject: name,
    message: `${message}: "${name}" is 0, and must be 1`,
    cause:
      files.length > 0
        ? `${files.join(', ')} sets it to 0 at each start and at each "sysctl --system"`
        : 'A program or an operator has turned it off since the pods were attached; ADD turns it on',
    fix: `sysctl -w ${name}=1`,
    apply: () => writeSysctl(path, '1'),
  };
}

/** Source: sysctl.d(5). */
const sysctlDirectories = ['/etc/sysctl.d', '/run/sysctl.d', '/usr/local/lib/sysctl.d', '/usr/lib/sysctl.d'];

/** The files of sysctl.d(5) that turn a setting off. */
function filesSetting(name: string): string[] {
  const files = [
    '/etc/sysctl.conf',
    ...sysctlDirectories.flatMap((directory) =>
      namesIn(directory)
        .filter((file) => file.endsWith('.conf'))
        .map((file) => `${directory}/${file}`),
    ),
  ];
  return files.filter((file) => {
    try {
      return readRegularFile(file, { followLink: true })
        .split('\n')
        .some((line) => {
          // A "-" has errors ignored.
          const [key = '', value] = line
            .replace(/^\s*-/, '')
            .split('=')
            .map((part) => part.trim());
          return value === '0' && (key.includes('/') ? key : key.replaceAll('.', '/')) === name;
        });
    } catch {
      return false; // It does not exist, or is too large to be one.
    }
  });
}

function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    return [];
  }
}
