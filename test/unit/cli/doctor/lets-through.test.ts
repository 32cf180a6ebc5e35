import test from 'ava';
import { letsThrough } from '../../../../cli/doctor/lets-through.ts';

const ip = '10.5.0.2';
const link = 'br0';

for (const line of [
  '-A CNI-FORWARD -s 10.5.0.2/32 -j ACCEPT',
  '-A FORWARD -s 10.5.0.0/16 -m comment --comment "x" -j ACCEPT',
  '-A FORWARD -i br0 -j ACCEPT',
  '-A FORWARD -i br+ ! -o br0 -j ACCEPT',
  'ip saddr 10.5.0.2 accept',
  'ip saddr { 10.4.0.0/16, 10.5.0.0/24 } counter packets 0 bytes 0 accept',
  'ip saddr 10.5.0.1-10.5.0.9 accept',
  'ip saddr @pods accept',
  'iifname "br0" accept',
  'iifname { "br0", "br1" } accept',
  'iifname "br*" accept',
  'ip saddr 10.5.0.2 goto filter_FWD_trusted',
  'counter packets 3 bytes 9 accept',
  'accept',
])
  test(`lets the pod through: ${line}`, (t) => t.true(letsThrough(line, ip, link)));

for (const line of [
  '-A FORWARD -s 10.6.0.0/16 -j ACCEPT',
  '-A FORWARD ! -s 10.5.0.0/16 -j ACCEPT',
  '-A FORWARD -d 10.5.0.2/32 -j ACCEPT',
  '-A FORWARD -s 10.5.0.2/32 -j DROP',
  '-A FORWARD -i br1 -j ACCEPT',
  '-A FORWARD ! -i br0 -j ACCEPT',
  '-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT',
  'ip saddr 10.5.0.2 drop',
  'ip saddr != 10.5.0.2 accept',
  'iifname != "br0" accept',
  'ip daddr 10.5.0.2 accept',
  'ct state established,related accept',
  'type filter hook forward priority filter; policy drop;',
])
  test(`does not: ${line}`, (t) => t.false(letsThrough(line, ip, link)));
