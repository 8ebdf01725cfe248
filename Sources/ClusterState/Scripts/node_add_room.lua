#!lua
-- A room enters the index of an incarnation, before its first membership there.
--
-- KEYS  1 P:{i:I}  2 P:{i:I}:rooms
-- ARGV  1 room
-- RETURNS 1 it is in the index; 0 the incarnation is dead or unknown, and a sweep may have read the index already
-- ATOMICITY  the state is read and the index written in one step, so that a sweep misses no room.
if redis.call('HGET', KEYS[1], 'state') ~= 'live' then return 0 end
redis.call('SADD', KEYS[2], ARGV[1])
return 1
