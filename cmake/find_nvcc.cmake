# Finds a CUDA compiler: CUDA_HOME, then PATH, then the compiler in PyPI's CUDA wheels. Sets NVCC,
# NVCC_FLAGS, CUDART (the static run-time library) and CUDA_VERSION, all empty where there is none.
#
# The wheels that together compile a .cu are pinned in requirements/nvcc.txt.
set(NVCC "")
set(NVCC_FLAGS "")
set(CUDART "")
set(CUDA_VERSION "")

find_program(toolkit_nvcc nvcc HINTS $ENV{CUDA_HOME}/bin NO_CACHE)
if(NOT toolkit_nvcc AND EXISTS /usr/local/cuda/bin/nvcc)
  set(toolkit_nvcc /usr/local/cuda/bin/nvcc)
endif()
if(toolkit_nvcc)
  # nvcc may be a wrapper or a link somewhere else: it says itself where its toolkit is.
  execute_process(COMMAND ${toolkit_nvcc} --dryrun -c nothing.cu ERROR_VARIABLE dryrun OUTPUT_QUIET)
  string(REGEX MATCH "#\\$ TOP=([^\n]*)" ignored "${dryrun}")
  get_filename_component(toolkit "${CMAKE_MATCH_1}" REALPATH)
  find_library(toolkit_cudart cudart_static NO_CACHE NO_DEFAULT_PATH
               PATHS ${toolkit}/lib64 ${toolkit}/lib ${toolkit}/targets/x86_64-linux/lib ${toolkit}/targets/sbsa-linux/lib)
  if(toolkit_cudart)
    set(NVCC ${toolkit_nvcc})
    set(CUDART ${toolkit_cudart})
  endif()
endif()

if(NOT NVCC)
  execute_process(
    COMMAND ${Python_EXECUTABLE} -c "import nvidia; print(*nvidia.__path__, sep=';')"
    OUTPUT_VARIABLE nvidia_folders OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  foreach(folder IN LISTS nvidia_folders)
    if(EXISTS ${folder}/cu13/bin/nvcc AND EXISTS ${folder}/cu13/lib/libcudart_static.a)
      set(NVCC ${folder}/cu13/bin/nvcc)
      set(NVCC_FLAGS -I${folder}/cu13/include)
      set(CUDART ${folder}/cu13/lib/libcudart_static.a)
    endif()
  endforeach()
endif()

if(NVCC)
  execute_process(COMMAND ${NVCC} --version OUTPUT_VARIABLE said COMMAND_ERROR_IS_FATAL ANY)
  string(REGEX MATCH "release ([0-9.]+)" ignored "${said}")
  set(CUDA_VERSION ${CMAKE_MATCH_1})
  message(STATUS "CUDA compiler: ${NVCC}, of CUDA ${CUDA_VERSION}")
else()
  message(STATUS "CUDA compiler: none found, the CUDA kernels are left out")
endif()
