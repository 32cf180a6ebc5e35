/** Whether iptables sees what pods on one bridge send to one another, as kube-proxy needs. */

import type { Family } from '../../lib/ip.ts';
import { readSysctl, writeSysctl } from '../../lib/kernel/sysctl.ts';
import type { Check, Finding } from './check.ts';
import { type Context, hasFamily, isRouted } from './context.ts';

export const bridgeNetfilter: Check = {
  id: 'bridge-nf-call',
  title: 'Bridge netfilter',
  run(context) {
    const families = ([4, 6] as const).filter((family) => needsIt(family, context));
    const findings = families.flatMap(findingOf);
    const seen =
      families.length === 0
        ? 'nothing here needs it'
        : "iptables sees the packets of bridges, as kube-proxy's rules need";
    return { findings, seen };
  },
};

/** kube-proxy has rules of this chain, and pods of a bridge may be behind a service of others. */
function needsIt(family: Family, { rules, running }: Context): boolean {
  const hasServices = rules.some(
    (saved) =>
      saved.family === family && saved.tables.get('nat')?.some((line) => line.startsWith(':KUBE-SERVICES ')),
  );
  const isBridged = running.some(
    (one) =>
      isRouted(one) && hasFamily(one, family) && one.network?.plugins.some(({ type }) => type === 'bridge'),
  );
  return hasServices && isBridged;
}

function findingOf(family: Family): Finding[] {
  const path = ['bridge', `bridge-nf-call-${family === 4 ? 'iptables' : 'ip6tables'}`];
  const name = `net/${path.join('/')}`;
  const value = readSysctl(path);
  if (value === '1') return [];
  return [
    {
      severity: 'error',
      subject: name,
      message: `Services fail between pods on the same bridge: "${name}" is ${value ?? 'missing'}, and must be 1`,
      cause:
        value === undefined
          ? 'The module "br_netfilter" is not loaded'
          : 'Answers pass the bridge by, so that kube-proxy cannot translate their addresses back',
      mend: `${value === undefined ? 'modprobe br_netfilter && ' : ''}sysctl -w ${name}=1`,
      ...(value !== undefined && { fix: () => writeSysctl(path, '1') }),
    },
  ];
}
