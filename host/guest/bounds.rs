//! Bounds: everything of a guest's that the host reads or holds, what bounds it, and the test that
//! exceeds it. `tests/tidy.rs` sees that the constants and the tests are there.
//!
//! What is said to *count* is part of the route's limit `memory`, with the guest's own memories.
//!
//! # The module, before it runs
//!
//! | what | bound | constant | test |
//! |---|---|---|---|
//! | its file | 64 MiB | `MODULE_BYTES` | `files_that_are_no_pages_are_refused_with_a_reason` |
//! | time and memory of its compilation | `[compile]`, in a process of its own | `CompileLimits` | `a_module_that_explodes_in_the_compiler_is_refused` |
//! | interfaces that it names, types, their nesting | read by the compiling process | `CompileLimits` | `a_hostile_module_is_refused_by_name_and_words` |
//! | memory of the process that tries it | `memory` and 1 GiB | `HOST_BYTES` | `a_module_that_ends_whoever_starts_it_is_refused` |
//! | what children answer | 512 MiB of code, 1 MiB of all else | `ANSWER` | `an_answer_is_text_in_no_larger_number_than_asked_for` |
//! | memories, and what they begin with | 4, `memory` | `MEMORIES` | `a_hostile_module_is_refused_by_name_and_words` |
//! | tables, elements of each | 16, 100,000; they count | `TABLE_ELEMENTS` | `a_table_grows_up_to_the_limit_and_counts_as_memory` |
//! | core instances | 64 | `CORE_INSTANCES` | `modules_that_do_not_fit_are_refused_with_a_reason` |
//! | the host's records of an instance | 4 MiB | `INSTANCE_BYTES` | `modules_that_do_not_fit_are_refused_with_a_reason` |
//! | its start function | CPU and wall time of a dry run, in a process of its own | `DRY_RUN` | `modules_that_do_not_start_are_refused_with_a_reason` |
//! | messages about it | 4 KiB | `MESSAGE_BYTES` | `files_that_are_no_pages_are_refused_with_a_reason` |
//!
//! # A call, and what it hands over
//!
//! | what | bound | constant | test |
//! |---|---|---|---|
//! | strings and lists of one call, their elements included | `page` or `props` and 1 MiB | `CALL_BYTES` | `what_is_returned_is_bounded` |
//! | what `static-paths` lists | 160 MiB | `LISTING_BYTES` | `what_a_listing_returns_is_bounded` |
//! | the page, the props | `page`, `props` | `Limits` | `what_is_returned_is_bounded` |
//! | headers of a page | 64, 8 KiB | `MAX_HEADERS` | `headers_and_locations_are_bounded` |
//! | a redirect's location | 8 KiB | `MAX_LOCATION_BYTES` | `headers_and_locations_are_bounded` |
//! | tags | 128 of 256 bytes | `MAX_TAGS` | `what_is_returned_is_bounded` |
//! | calls to `revalidate` | 256 | `MAX_CALLS` | `calls_have_limits` |
//! | lists of handles, as for `poll` | as all lists of a call | `CALL_BYTES` | `what_the_host_holds_for_a_guest_is_its_memory` |
//! | the name of a setting | as all strings of a call | `CALL_BYTES` | `what_the_host_holds_for_a_guest_is_its_memory` |
//! | random bytes of a call | 64 KiB | `RANDOM_BYTES` | `what_the_host_holds_for_a_guest_is_bounded` |
//!
//! # What the host holds for it
//!
//! | what | bound | constant | test |
//! |---|---|---|---|
//! | handles | 4,096 | `HANDLES` | `handles_of_the_guests_own_making_are_bounded` |
//! | resources of all types | 1,024, of which none holds more than 1 KiB but as below | `RESOURCES` | `what_the_host_holds_for_a_guest_is_its_memory` |
//! | `fields`, and each copy of them | 128 KiB; they count | `FIELD_BYTES` | `what_the_host_holds_counts_as_the_guests_memory` |
//! | `outgoing-request`: method, scheme, authority, path | they count | `CALL_BYTES` | `what_the_host_holds_counts_as_the_guests_memory` |
//! | `outgoing-body`, of requests and responses | 2 × 64 KiB; they count | `BODY_CHUNK` | `what_the_host_holds_counts_as_the_guests_memory` |
//! | trailers | as fields; they count | `FIELD_BYTES` | `what_the_host_holds_counts_as_the_guests_memory` |
//! | a request that is sent, and the body of its answer | as above, and 128 KiB until it is read or left; they count | `REPLY_BYTES` | `what_the_host_holds_counts_as_the_guests_memory` |
//! | `incoming-response`: fields | 64 KiB; they count | `MAX_BUFFER` | `a_head_without_end_is_cut_off` |
//! | `incoming-request` of an API route, its body | 1 MiB; they count | `MAX_BODY` | `a_body_has_a_limit` |
//! | the answer of an API route, until it is whole | `page`; it counts | `BLOCK` | `a_module_that_fails_harms_nobody` |
//! | `request-options`, timers, streams of stdout, futures | as resources | `RESOURCES` | `what_the_host_holds_for_a_guest_is_its_memory` |
//! | files, sockets, look-ups of names by the guest | there are none | `Grants` | `nothing_is_granted` |
//! | stdout, stderr and messages in the log | 64 KiB, 4 KiB a line | `LOG_BYTES` | `a_flood_is_bounded_and_its_end_is_kept` |
//! | the end of stderr that an incident keeps | 4 KiB | `STDERR_BYTES` | `a_flood_is_bounded_and_its_end_is_kept` |
//! | outgoing requests, at once, bytes each way | `fetches`, `fetches-in-flight`, `fetch-bytes` | `SessionLimits` | `fetches_are_counted_and_measured` |
//! | look-ups of one route at once | 16 | `MAX_LOOKUPS_PER_ROUTE` | `look_ups_that_nobody_waits_for_are_bounded` |
//! | addresses of outgoing requests in incidents | 32 KiB | `MAX_URLS` | `many_long_urls_do_not_fill_an_incident` |
//!
//! # When it has failed
//!
//! | what | bound | constant | test |
//! |---|---|---|---|
//! | debug information: memory, CPU time, stack | 256 MiB, 5 s, 32 MiB, in a process of its own | `MEMORY` | `hostile_debug_information_costs_its_own_lines_only` |
//! | readers of debug information at once, and those who wait | 2, 16 | `CHILDREN` | `hostile_debug_information_costs_its_own_lines_only` |
//! | lines of one failure, of a module | 256, 4 MiB kept | `SYMBOLS` | `hostile_debug_information_costs_its_own_lines_only` |
//! | names of functions and of the module | 100,000 bytes, one for each function | `NAME_BYTES` | `names_of_functions_are_bounded` |
//! | frames of a backtrace | 32 | `BACKTRACE_FRAMES` | `a_recursion_is_one_frame` |
//! | a function's name, its place | 512 bytes | `FRAME_BYTES` | `a_recursion_is_one_frame` |
//! | its message, its props in an incident | 4 KiB | `MESSAGE_BYTES` | `a_panic_reads_like_an_error_that_one_can_act_on` |
//! | characters that steer a terminal or turn a line around | none | `is_hidden` | `what_is_hidden_is_shown` |
