import test from 'ava';
import { sysctlPath } from '../../../../plugins/tuning/sysctl.ts';

for (const [name, ifname, path] of [
  ['net.core.somaxconn', 'eth0', ['core', 'somaxconn']],
  ['net/core/somaxconn', 'eth0', ['core', 'somaxconn']],
  ['net.ipv4.conf.IFNAME.arp_filter', 'eth0.100', ['ipv4', 'conf', 'eth0.100', 'arp_filter']],
  ['net/ipv4/conf/IFNAME/arp_filter', 'eth0.100', ['ipv4', 'conf', 'eth0.100', 'arp_filter']],
  ['net/ipv4/conf/eth0.100/arp_filter', 'eth0', ['ipv4', 'conf', 'eth0.100', 'arp_filter']],
  ['/net/core/somaxconn', 'eth0', ['core', 'somaxconn']],
  ['net//core/./somaxconn/', 'eth0', ['core', 'somaxconn']],
  ['net.ipv4/conf/all/arp_filter', 'eth0', ['ipv4', 'conf', 'all', 'arp_filter']],
] as const)
  test(`finds ${name} of ${ifname}`, (t) => {
    t.deepEqual(sysctlPath(name, ifname), [...path]);
  });

for (const name of ['kernel.hostname', 'net', 'network.x', '', '/proc/sys/net/core/somaxconn', '../net/core'])
  test(`does not take "${name}" for a setting of the network`, (t) => {
    t.throws(() => sysctlPath(name, 'eth0'), { message: /only settings that begin with "net\."/ });
  });

for (const name of [
  'net/../kernel/hostname',
  '/net//../kernel/hostname',
  'net..core',
  'net.ipv4.',
  'net/ipv4/\0',
])
  test(`refuses ${JSON.stringify(name)}`, (t) => {
    t.throws(() => sysctlPath(name, 'eth0'), { message: /not the name of a kernel setting/ });
  });
