/** Faults that the code could have, each with the proof that must detect it. */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Mutant } from '../mutate/mutants.ts';

/** One fault. */
export interface Fault {
  /** What the code does wrongly with it. */
  readonly what: string;
  /** Source file. */
  readonly file: string;
  /** An expression, or a statement with its semicolon, that occurs in the file just once. */
  readonly original: string;
  /** The expression that replaces it; left out for a statement that is skipped. */
  readonly replacement?: string;
  /** Which proof must detect it, and the arguments that select the part of the proof to run. */
  readonly proof: keyof typeof proofs;
  readonly run: readonly string[];
  /** What the proof must report then. */
  readonly says: RegExp;
}

/** The proofs, each with the arguments of Node.js that run it, before those of a fault. */
export const proofs = {
  kill: ['scripts/prove.ts', '--fail-fast', '--kind', 'kill'],
  fail: ['scripts/prove.ts', '--fail-fast', '--kind', 'fail'],
  stop: ['scripts/prove.ts', '--fail-fast', '--kind', 'stop'],
  refuse: ['scripts/prove.ts', '--fail-fast', '--kind', 'refuse'],
  soak: ['scripts/soak.ts'],
  fuzz: ['scripts/fuzz.ts'],
  privileges: ['node_modules/ava/entrypoints/cli.js', '--tap', 'test/network/privileges.test.ts'],
  recovery: ['node_modules/ava/entrypoints/cli.js', '--tap', 'test/network/recovery.test.ts'],
} as const satisfies Record<string, readonly string[]>;

/** Limited by lives, or by time on a slow machine. */
const shortSoak = '--lives 160 --at-once 12 --minutes 1 --seed 1'.split(' ');

/** Every fault that is tried. */
export const faults: readonly Fault[] = [
  {
    what: 'DEL leaves the reservation that a killed ADD has not written yet',
    file: 'ipam/host-local/store.ts',
    original: '[...own, ...unfinished]',
    replacement: '[...own]',
    proof: 'kill',
    run: '--subject host-local --only ADD/0-host-local/write --share 50 --seed 1'.split(' '),
    says: /This was left or lost:[\s\S]* \+ \/files\/\/var\/lib\/cni\/networks\/proof\/10\.31\./,
  },
  {
    what: 'DEL leaves an address in the sets of nftables that are let through',
    file: 'lib/firewall/forward-nftables.ts',
    original: 'findSets(socket, setNames[family]).map((set) => ({ family, set }))',
    replacement: '[]',
    proof: 'kill',
    run: '--subject nftables --only DEL/2-firewall --share 10 --seed 1'.split(' '),
    says: /This was left or lost:[\s\S]* \+ .*10\.31\.0\./,
  },
  {
    what: 'DEL does not give the device back to the host',
    file: 'plugins/host-device.ts',
    original: "move(own.link, own.sandbox.netns, home, nameOnHost(call, own.link), '');",
    proof: 'kill',
    run: '--subject host-device --only DEL/0-host-device --share 10 --seed 1'.split(' '),
    says: /dev0/,
  },
  {
    what: 'GC takes the port mappings of living pods as well',
    file: 'lib/firewall/portmap-iptables.ts',
    original: 'readComment(comment)?.network === network && !keep.has(chain)',
    replacement: 'readComment(comment)?.network === network',
    proof: 'kill',
    run: '--subject iptables --only GC/1-portmap --share 10 --seed 1'.split(' '),
    says: /The neighbour is not connected any more/,
  },
  {
    what: 'an ADD that fails leaves the reception of all multicast frames on',
    file: 'plugins/tuning.ts',
    original: 'void sandbox.socket.attempt(...linkRequests(sandbox, ifname, before))',
    replacement:
      'void sandbox.socket.attempt(...linkRequests(sandbox, ifname, { ...before, allmulti: undefined }))',
    proof: 'fail',
    run: '--subject iptables --only ADD/4-tuning/write --seed 1'.split(' '),
    says: /Not undone:[\s\S]*allmulti/i,
  },
  {
    what: 'an ADD that fails gives its first address not back',
    file: 'ipam/host-local.ts',
    original: '() => releaseAddress(call, ip.address.address)',
    replacement: '() => {}',
    proof: 'fail',
    run: '--subject host-local --only ADD/0-host-local/write --seed 1'.split(' '),
    says: /Not undone:[\s\S]* \+ \/files\/\/var\/lib\/cni\/networks\/proof\/10\.31\./,
  },
  {
    what: 'what the kernel refuses is answered as if there were nothing to clean up',
    file: 'lib/cni/error-object.ts',
    original: '{ code: ErrorCode.Internal, details: causeOf(error) }',
    replacement: '{ code: ErrorCode.UnknownContainer, details: causeOf(error) }',
    proof: 'fail',
    run: '--subject ptp --only ADD/0-ptp/setns --seed 1'.split(' '),
    says: /Its code is none of 999: [\s\S]*"code": 3,/,
  },
  {
    what: 'GC releases the address of a living pod',
    file: 'ipam/host-local.ts',
    original: 'valid.has(attachmentKey(owner))',
    replacement: 'false',
    proof: 'fail',
    run: '--subject host-local --only GC/0-host-local/flock --seed 1'.split(' '),
    says: /- \/files\/\/var\/lib\/cni\/networks\/proof\/10\.31\./,
  },
  {
    what: 'DEL takes any refusal for an interface that is gone already',
    file: 'lib/cni/remove-interface.ts',
    original: "if (!isKernelError(error, 'ENODEV')) throw error;",
    proof: 'refuse',
    run: '--subject macvlan --only DEL/0-macvlan/dellink'.split(' '),
    says: /It succeeded, but has left or lost:/,
  },
  {
    what: 'DEL without a result leaves the masquerading rules',
    file: 'lib/cni/main-plugin.ts',
    original: 'rules?.del()',
    replacement: '(call.prevResult ? rules?.del() : undefined)',
    proof: 'stop',
    run: '--subject ptp --share 4 --seed 1'.split(' '),
    says: /This was left or lost:[\s\S]* \+ \/iptables/,
  },
  {
    what: 'the agent leaves network namespaces open',
    file: 'lib/kernel/netns.ts',
    original: 'closeSync(this.fd);',
    proof: 'kill',
    run: '--subject loopback --only DEL/0-loopback --share 20 --seed 1'.split(' '),
    says: /This was left or lost:[\s\S]* \+ \/descriptors/,
  },
  {
    what: 'tuning takes a setting that the kernel refuses for done',
    file: 'plugins/tuning.ts',
    original: 'sandbox.socket.execute(...linkRequests(sandbox, ifname, wanted))',
    replacement: 'sandbox.socket.attempt(...linkRequests(sandbox, ifname, wanted))',
    proof: 'refuse',
    run: '--subject iptables --only ADD/4-tuning/setlink --seed 1'.split(' '),
    says: /of interface \\*"eth0\\*" is \w+, but should be \w+/,
  },
  {
    what: 'sbr takes every refusal to delete a rule for done',
    file: 'plugins/sbr.ts',
    original: 'requireGone(socket.attempt(...rules.map(deleteRoutingRule)))',
    replacement: 'socket.attempt(...rules.map(deleteRoutingRule))',
    proof: 'refuse',
    run: '--subject ptp --only DEL/1-sbr/delrule --seed 1'.split(' '),
    says: /It succeeded, but has left or lost:[\s\S]* \+ \/rules .*from 10\.31\.0\./,
  },
  {
    what: 'a bridge stays without addresses when ADD fails',
    file: 'lib/kernel/bridge.ts',
    original: '() => deleteIfUnused(socket, name)',
    replacement: '() => {}',
    proof: 'refuse',
    run: '--subject iptables --only ADD/0-bridge/first-newaddr --seed 1'.split(' '),
    says: /Not undone:[\s\S]* \+ \/links .*"br0"/,
  },
  {
    what: 'CHECK takes a reservation that it cannot read for its own',
    file: 'ipam/host-local.ts',
    original: 'await reservedFor(call)',
    replacement:
      '(await reservedFor(call).catch(() => call.prevResult.ips.map(({ address }) => address.address)))',
    proof: 'fail',
    run: '--subject host-local --only CHECK-LOST/0-host-local --seed 1'.split(' '),
    says: /It finds in order what is not there/,
  },
  {
    what: 'an address that is reserved is given to another pod as well',
    file: 'ipam/host-local/store.ts',
    original: "readReservation(this.directory, this.network, address)?.state !== 'empty'",
    replacement: 'false',
    proof: 'soak',
    run: shortSoak,
    says: /VIOLATION: 10\.9[01]\.0\.\d+ is in soak\d+ and in soak\d+/,
  },
  {
    what: 'a claim that holds nothing is read as if it held an object',
    file: 'lib/firewall/claim-file.ts',
    original: "typeof value !== 'object' || value === null",
    replacement: "typeof value !== 'object'",
    proof: 'fuzz',
    run: '--target firewall-claim --inputs 5000 --seed 1'.split(' '),
    says: /FAILED firewall-claim.*\s+Not a refusal but a defect/,
  },
  {
    what: 'no message names the capability that is missing',
    file: 'lib/kernel/capabilities.ts',
    original: 'missing.length === 0',
    replacement: 'true',
    proof: 'privileges',
    run: ['--match=ptp: each verb *'],
    says: /^not ok \d+ - ptp: each verb [\s\S]*CAP_NET_ADMIN/m,
  },
  {
    what: 'STATUS takes a capability that the table does not have',
    file: 'ipam/host-local.ts',
    original: 'refuseUnwritable(dataDir)',
    replacement:
      "(process.getBuiltinModule('node:child_process').execFileSync('unshare', ['--net', 'true']), refuseUnwritable(dataDir))",
    proof: 'privileges',
    run: ['--match=host-local: each verb *'],
    says: /^not ok \d+ - host-local: each verb [\s\S]*STATUS with /m,
  },
  {
    what: 'what is reserved before a reboot stays so for ever',
    file: 'lib/kernel/boot.ts',
    original: 'noted !== current',
    replacement: 'false',
    proof: 'recovery',
    run: ['--match=after a reboot the first ADD releases *'],
    says: /^not ok \d+ - after a reboot the first ADD /m,
  },
];

/**
 * Finds faults in the sources.
 * @throws Error when a source has no such text any more, or has it twice.
 */
export function located(root: string, all: readonly Fault[] = faults): Mutant[] {
  return all.map(({ file, original, replacement = '', what }) => {
    const text = readFileSync(join(root, file), 'utf8');
    const start = text.indexOf(original);
    if (start < 0 || original === '' || text.includes(original, start + 1))
      throw new Error(
        `The fault "${what}" is for one place of "${file}" with "${original}", which has ${start < 0 ? 'none' : 'several'}. ` +
          'Correct it in "scripts/deliberate/faults.ts"',
      );
    return {
      ...{ file, original, replacement, start },
      end: start + original.length,
      line: text.slice(0, start).split('\n').length,
      kind: replacement === '' ? 'statement' : 'expression',
    };
  });
}
