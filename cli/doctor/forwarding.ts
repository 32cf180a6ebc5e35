/** Whether the kernel forwards what pods send, and what is sent to them. */

import type { Family } from '../../lib/ip.ts';
import { readSysctl, writeSysctl } from '../../lib/kernel/sysctl.ts';
import { hasFamily, ingressOf, isRouted } from '../inventory/running.ts';
import type { Check, Finding } from './check.ts';
import type { Context } from './context.ts';
import { decidingFile } from './sysctl-files.ts';

const settings: Readonly<Record<Family, readonly string[]>> = {
  4: ['ipv4', 'ip_forward'],
  6: ['ipv6', 'conf', 'all', 'forwarding'],
};

/** Other names of settings. Source: Documentation/networking/ip-sysctl.rst of the kernel. */
const aliases: Readonly<Record<string, readonly string[]>> = {
  'net/ipv4/ip_forward': ['net/ipv4/conf/all/forwarding'],
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
  const deciding = decidingFile([name, ...(aliases[name] ?? [])]);
  return {
    severity: 'error',
    subject: name,
    message: `${message}: "${name}" is 0, and must be 1`,
    cause:
      deciding?.value === '0'
        ? `"${deciding.file}" sets it to 0 whenever such files are applied, as by "sysctl --system"`
        : 'A program or an operator has turned it off since the pods were attached; ADD turns it on',
    fix: `sysctl -w ${name}=1`,
    apply: () => writeSysctl(path, '1'),
  };
}
